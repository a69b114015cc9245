"""Further networks: capsules, U-Net, recurrent time-resolved sites, and fine-tuning."""

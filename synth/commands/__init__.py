"""The commands of ``npc``, one file each; `synth.cli` mounts them. Each imports torch only when it runs."""

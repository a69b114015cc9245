from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import PLSRegression

from neural_fits.pls import fit_pls
from neural_fits.readout import fit_complete
from neural_fits.ridge import principal_scores


def theirs(features, responses, components):
    """Scikit-learn's fit, its power iteration run until it no longer moves."""
    model = PLSRegression(components, scale=False, tol=1e-20, max_iter=20_000)
    return model.fit(features.flatten(1).double().numpy(), responses.double().numpy())


def planted(n, shape, sites=5, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, *shape)) * rng.uniform(0.2, 3.0, shape) + rng.normal(size=shape) * 2
    signal = np.einsum("nchw,schw->ns", features, rng.normal(size=(sites, *shape)))
    return torch.from_numpy(features), torch.from_numpy(
        signal * np.arange(1, sites + 1) + rng.normal(size=signal.shape)
    )


@pytest.mark.parametrize(("n", "shape"), [(40, (6, 3, 4)), (90, (4, 2, 3)), (40, (60, 1, 1))])
@pytest.mark.parametrize("sites", [1, 5])
def test_equals_scikit_learn(n, shape, sites):
    features, responses = planted(n + 20, shape, sites)
    readout = fit_pls(features[:n], responses[:n], 6)
    wanted = theirs(features[:n], responses[:n], 6).predict(features.flatten(1).numpy())
    wanted = wanted.reshape(len(features), sites)
    np.testing.assert_allclose(readout(features).numpy(), wanted, atol=1e-6 * wanted.std())


def test_on_scores_of_photographs_it_equals_scikit_learn_on_features(photo_features):
    rng = np.random.default_rng(0)
    flat = photo_features.flatten(1).double()
    drive = (flat - flat.mean(0)) @ torch.from_numpy(rng.normal(size=(flat.shape[1], 8)))
    responses = (5 + drive / drive.std(0) + torch.from_numpy(0.5 * rng.normal(size=drive.shape))).float().numpy()
    compressed = principal_scores(photo_features)
    readout = fit_complete(fit_pls, compressed.features[:120], responses[:120])
    wanted = theirs(photo_features[:120], torch.from_numpy(responses[:120]), 25)
    held_out = wanted.predict(flat[120:].numpy())
    np.testing.assert_allclose(readout(compressed.features[120:]).numpy(), held_out, atol=1e-4 * held_out.std())
    np.testing.assert_allclose(
        compressed.expand(readout)(photo_features[120:]).numpy(), held_out, atol=1e-3 * held_out.std()
    )


@pytest.mark.parametrize(("n", "channels"), [(8, 30), (30, 4)], ids=["few stimuli", "few features"])
def test_no_more_components_than_there_are(n, channels):
    features, responses = planted(n, (channels, 1, 1), 2)
    least_squares = np.linalg.lstsq(np.column_stack([np.ones(n), features.flatten(1)]), responses.numpy(), rcond=None)[
        0
    ]
    wanted = np.column_stack([np.ones(n), features.flatten(1)]) @ least_squares
    np.testing.assert_allclose(fit_pls(features, responses)(features).numpy(), wanted, atol=1e-6)


def test_it_stops_where_nothing_is_left_to_explain():
    features, _ = planted(60, (10, 1, 1))
    responses = features[:, :1, 0, 0] * 2 + 7  # needs at most 10 of the 25
    features = torch.cat([features, features[:, :3], torch.full((60, 2, 1, 1), 3.3)], 1)
    readout = fit_pls(features, responses)
    torch.testing.assert_close(readout(features), responses)
    assert (readout.weight[:, -2:].abs() < 1e-9).all()


def test_more_components_fit_better():
    features, responses = planted(60, (20, 1, 1))
    errors = [(fit_pls(features, responses, k)(features) - responses).square().mean().item() for k in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    with pytest.raises(ValueError, match="components is 0; give 1 or more"):
        fit_pls(features, responses, 0)


def test_features_or_responses_without_variance_predict_the_mean():
    _, responses = planted(12, (2, 1, 1))
    constant = torch.full((12, 2, 3, 3), 3.3, dtype=torch.float64)
    torch.testing.assert_close(fit_pls(constant, responses)(constant[:1])[0], responses.mean(0))
    compressed = principal_scores(constant)
    readout = compressed.expand(fit_pls(compressed.features, responses))
    torch.testing.assert_close(readout(constant[:1])[0], responses.mean(0))
    features, _ = planted(12, (2, 1, 1), seed=1)
    readout = fit_pls(features, torch.full((12, 1), 7.0, dtype=torch.float64))
    torch.testing.assert_close(readout(features), torch.full((12, 1), 7.0, dtype=torch.float64))

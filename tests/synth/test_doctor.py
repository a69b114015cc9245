from synth.doctor import _owners, examine


def test_another_owner_of_our_names_is_named():
    checks = _owners({"stimuli": ["neural-population-control", "stimuli"], "synth": ["neural-population-control"]})
    assert [check["ok"] for check in checks] == [False, True, True]
    assert "stimuli" in checks[0]["found"]


def test_missing_weights_are_found(monkeypatch):
    import neural_fits.backbones as backbones

    monkeypatch.setitem(backbones.EMBEDDED, "efficientnet-lite0", ("tf_efficientnet_lite0", "no_such_package", 224))
    findings = examine()
    bad = [check for check in findings["checks"] if not check["ok"]]
    assert not findings["ok"]
    assert [check["what"] for check in bad] == ["efficientnet-lite0"]
    assert "pip install no-such-package" in bad[0]["found"]

from lit_xai.cli.spelling import did_you_mean


def test_the_nearest_name_or_nothing():
    assert did_you_mean("tset", iter(["fit", "test"])) == " Did you mean 'test'?"
    assert did_you_mean("xyz", ["fit", "test"]) == did_you_mean("fit", []) == ""

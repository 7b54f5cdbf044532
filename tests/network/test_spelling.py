from lit_xai.network.spelling import nearest


def test_nearest_first_whatever_the_case():
    assert nearest("saliancy", ["Occlusion", "Saliency"]) == " Did you mean 'Saliency'?"


def test_the_last_part_of_a_dotted_name():
    assert nearest("conv1", ["network.conv1", "network.fc"]) == " Did you mean 'network.conv1'?"


def test_nothing_comes_close():
    assert nearest("xyz", ["fit", "test"]) == nearest("fit", []) == ""

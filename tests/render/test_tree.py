from lit_xai.render.tree import TreeNode, tree_figure


def tree(depth, text="a feature of the worst concave points"):
    if not depth:
        return TreeNode("malignant tumor of a long name (97%)", 0.004, kind=12)
    return TreeNode(text, 1.0, yes=tree(depth - 1), no=TreeNode("benign (100%)", 0.5))


def test_deep_trees_and_long_names_are_legible(assert_legible, words_of):
    figure = tree_figure([("the network's predictions", tree(9)), ("the labels", tree(2))], "a title", "a summary")
    assert_legible(figure)
    words = words_of(figure)
    assert words.count("yes") == words.count("no") == 11
    assert "<1%" in words
    assert any("…" in word for word in words)


def test_lines_are_in_the_order_of_the_questions(words_of):
    inner = TreeNode("b", 0.6, yes=TreeNode("B1", 0.1), no=TreeNode("B2", 0.5))
    root = TreeNode("a", 1.0, yes=inner, no=TreeNode("C", 0.4))
    words = [word for word in words_of(tree_figure([("", root)])) if word in ("a ?", "b ?", "B1", "B2", "C")]
    assert words == ["a ?", "b ?", "B1", "B2", "C"]


def test_one_leaf_is_a_tree(assert_legible):
    assert_legible(tree_figure([("", TreeNode("benign (100%)", 1.0))]))


def test_a_caution_is_framed_and_the_first_tree_is_pale(assert_legible, words_of):
    trees = [("the network's predictions", tree(2, "a")), ("the labels", tree(2, "b"))]
    calm, loud = tree_figure(trees), tree_figure(trees, caution="Not faithful: " + "for some of the samples " * 8)
    assert_legible(loud)
    assert loud.canvas.get_width_height()[1] > calm.canvas.get_width_height()[1]
    assert any(word.startswith("Not faithful") for word in words_of(loud))

    def colors(figure, words):
        return {text.get_color() for text in figure.axes[0].texts if text.get_text() == words}

    assert colors(loud, "a ?") != colors(calm, "a ?")
    assert colors(loud, "b ?") == colors(calm, "b ?")

"""A renderer as somebody else would write one: public names alone, in one file."""

from matplotlib.figure import Figure

from lit_xai.render import Renderer


class Words(Renderer):
    """Writes each token of the first sample with its share."""

    name = "words"
    needs = "one number per token"
    vocabulary = "abcd"

    def suits(self, inputs, attributions):
        return "int" in str(inputs.dtype) and self.fits(inputs, attributions)

    def fits(self, inputs, attributions):
        return inputs.shape == attributions.shape and inputs.ndim == 2

    def find_limit(self, shares):
        return 1.0

    def draw(self, drawing):
        figure = Figure((7, 1))
        figure.text(0, 0.5, drawing.title)
        for i, (token, share) in enumerate(zip(drawing.inputs[0], drawing.shares.values[0, 0], strict=True)):
            figure.text(0.1 * i, 0, f"{self.vocabulary[int(token)]} {share:+.0%}")
        return figure

"""What forked processes would do each by itself, done once by the server that forks them: codecs, fonts, templates."""

from __future__ import annotations

from matplotlib.figure import Figure
from PIL import Image

from homing.outputs.report.figures import to_svg
from homing.outputs.report.page import environment

Image.init()
for name in environment().list_templates():
    environment().get_template(name)
figure = Figure()
figure.subplots().plot([1, 2])
to_svg(figure, "warm")

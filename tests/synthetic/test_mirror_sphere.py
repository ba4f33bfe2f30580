import numpy as np
import pytest
from PIL import Image

from fr_ps.photometric.lights import light_directions
from fr_ps.synthetic.mirror_sphere import BALL_ANGLES, render_mirror_sphere, write_mirror_sphere


def test_a_light_from_the_upper_left_is_reflected_where_the_normal_halves_the_angle_to_the_camera():
    light = light_directions([(40, 30)])  # a positive azimuth lights the left half
    half = light[0] + [0, 0, 1]
    half /= np.linalg.norm(half)
    (picture,) = render_mirror_sphere(light, size=(80, 90), centre=(50, 40), radius=30, noise=0, light_radius=10)
    rows, columns = np.nonzero(picture > 128)
    assert columns.mean() + 0.5 == pytest.approx(50 + 30 * half[0], abs=0.1)
    assert rows.mean() + 0.5 == pytest.approx(40 - 30 * half[1], abs=0.1)
    assert half[0] < 0 < half[1]


def test_a_folder_has_one_picture_of_each_light(tmp_path):
    write_mirror_sphere(tmp_path / "ball", BALL_ANGLES[:2])
    assert sorted(path.name for path in (tmp_path / "ball").iterdir()) == ["im0.png", "im1.png"]
    with Image.open(tmp_path / "ball/im1.png") as image:
        assert (image.size, image.mode) == ((320, 240), "L")

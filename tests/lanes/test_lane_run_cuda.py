"""A whole lane run on a GPU."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from lane_recipe import TINY

from command_line import detprune
from detprune_lanes.network.checkpoints import read_checkpoint

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_run(tmp_path: Path, precision: str) -> None:
    trainer = {"precision": precision, "progress_bar": False}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump({**copy.deepcopy(TINY), "trainer": trainer, "batch_norm_images": 8})
    )
    out = ("--out", tmp_path / "run")
    detprune("run", recipe, *out, preloaded=None, env={"XDG_CACHE_HOME": str(tmp_path)})
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["compression"] == pytest.approx(10, rel=1e-3)
    state = read_checkpoint(tmp_path / "run" / "pruned.pt")
    for layer in summary["layers"]:
        assert int(torch.count_nonzero(state[layer["name"]])) == layer["nonzero"]
    assert (tmp_path / "run" / "pictures" / "lanes.jpg").stat().st_size > 10_000

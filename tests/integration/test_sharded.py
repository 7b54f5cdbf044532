"""Training that shards weights over processes: prune before it, explain its consolidated checkpoint after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import run_script

import lit_xai
from lit_xai.functional import attribute


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_network_pruned_before_it_is_sharded_is_explained_afterwards(tmp_path):
    run_script(Path(__file__).parent / "sharded_run.py", tmp_path)
    folder = tmp_path / "sharded.ckpt"
    assert folder.is_dir()
    command = [sys.executable, "-m", "lightning.fabric.utilities.consolidate_checkpoint", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    sys.path.insert(0, str(Path(__file__).parent))
    from sharded_run import Sharded

    module = lit_xai.load_from_checkpoint(Sharded, tmp_path / "sharded.ckpt.consolidated")
    assert module.network[0].weight.shape == (8, 8)
    dense = Sharded().network
    assert not torch.equal(module.network[0].weight, dense[0].weight[:8])
    maps = attribute(module, torch.ones(2, 8), method="InputXGradient", target=1)
    assert maps.shape == (2, 8)
    assert maps.std() > 0

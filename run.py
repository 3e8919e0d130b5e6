"""python run.py model=llama2 task=qasper: composes the configuration and hands it to the runner."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from lazybench import command_line

CONF = Path(__file__).parent / "conf"
command_line.register_methods(CONF)


@hydra.main(version_base=None, config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> int:
    """One job of a sweep, or the only one; torch is imported inside, so that --help is quick."""
    return command_line.run_job(config, CONF)


if __name__ == "__main__":
    sys.exit(command_line.main(job, CONF))

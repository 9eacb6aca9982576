"""Trains on a mix of real and synthetic samples: ``python train.py [overrides]``; the settings are in ``conf/``."""

from lightning_diffaug.cli import train

if __name__ == "__main__":
    train()

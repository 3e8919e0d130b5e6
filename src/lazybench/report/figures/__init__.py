"""The paper's figures, and one run's trade-off plot; each module draws one."""

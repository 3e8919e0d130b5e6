"""The paper's figures, and quality over speed."""

"""The paper's figures and tables on anybody's pictures, beside the paper's own numbers."""

"""How moments are written, language by language."""

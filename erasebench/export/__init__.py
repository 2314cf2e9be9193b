"""An edit leaves the house: as a LoRA, a folder, changed weights; and goes onto another model."""

"""Floor 9: the main job end to end on real data: handwritten digits, held in mixed formats, classified by one INR-Net."""

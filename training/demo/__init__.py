"""The main job end to end on built-in photos: learn, export, deploy, adapt, see the saving."""

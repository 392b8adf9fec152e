"""tiny-canvas: the world, the renderer and the training scripts of the bundled model."""

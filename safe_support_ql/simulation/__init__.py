"""PyBullet worlds behind a robot's own channels, and the episodes played in them. Ground truth lives here."""

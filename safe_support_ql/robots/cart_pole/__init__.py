"""The cart-pole of pybullet_data: keep the cart at a goal and the pole upright."""

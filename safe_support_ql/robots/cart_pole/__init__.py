"""pybullet_data's cart-pole: hold the cart at a goal while the pole stays up."""

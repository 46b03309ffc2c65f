"""A carriage on a rail, driven by speed: drive it to a goal and stay between the ends of the rail."""

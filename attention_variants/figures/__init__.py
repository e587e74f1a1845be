"""Pictures of arrays: matplotlib only, no jax."""

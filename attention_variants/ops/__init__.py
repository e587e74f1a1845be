"""Pure maths on arrays: jax only, no flax, no config objects, no state.

Letters in names: B batch · Q query length · S key length · T target length · H heads · K head size of queries and keys ·
V head size of values (in losses: vocabulary) · D model width · F features, outputs of a linear layer · R rows.
"""

"""Image models in one `.safetensors` file, in the layout that they were first published in.

diffusers' own loaders bring the weights to their modules; what they would fetch from a Hub, the
configs, is read off the tensors' names and shapes, but for the few facts that those do not tell.
"""

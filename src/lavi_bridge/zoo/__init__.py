"""The bundled zoo: small models that are really pre-trained, and the demo on them."""

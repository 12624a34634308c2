"""The bundled zoo: small models that are really pre-trained, and the world they know."""

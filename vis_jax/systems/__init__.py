"""The systems by the name a config gives them."""

from vis_jax.systems import ifr

SYSTEMS = {"ifr": ifr.build}

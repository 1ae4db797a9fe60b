"""`python -m vis_jax` is the command `vis-jax`."""

from vis_jax.main import console

if __name__ == "__main__":
    console()

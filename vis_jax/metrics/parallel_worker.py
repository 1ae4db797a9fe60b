"""One of the processes of `parallel`: python -m vis_jax.metrics.parallel_worker JOB."""

import sys

from vis_jax.metrics.parallel import main

if __name__ == "__main__":
    main(sys.argv[1])

"""Chains and events of one posterior in the jobs of a batch system: each job has its share.

    python array.py train       in an array of jobs: job i runs the chains of shard i
    python array.py merge       in one job: one posterior of all chains
    python array.py generate    in an array of jobs: job i generates every S-th part of the events
    python array.py join        in one job: checks the parts and lists them in events.json

SLURM tells each job its number i and the number S of jobs; jobs.sh sends all of them. Other batch systems: --task i
--tasks S. A job that was killed goes on when it is sent again. --quick: a short run.
"""

import argparse
import os
from pathlib import Path

import torch

import pyrogen as pg

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("step", choices=("train", "merge", "generate", "join"))
parser.add_argument("--task", type=int, default=int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)))
parser.add_argument("--tasks", type=int, default=int(os.environ.get("SLURM_ARRAY_TASK_COUNT", 1)))
parser.add_argument("--quick", action="store_true")
args = parser.parse_args()

# All jobs begin with the same events, model and settings.
torch.manual_seed(0)
events = pg.targets.Wedge().sample((200 if args.quick else 20_000,))
blocks, hidden = (1, (4,)) if args.quick else (6, (32, 32))
model = pg.BayesianFlow(pg.CouplingFlow(features=2, blocks=blocks, hidden=hidden))
steps = {"warmup": 5, "draws": 10, "start_steps": 5} if args.quick else {"warmup": 2000, "draws": 1000}
backend = pg.SGHMC(chains=4 if args.quick else 16, checkpoint="run.h5", seed=1, **steps)
generated = {"n": 1000, "draws": 10, "chunk": 100} if args.quick else {"n": 100_000_000}

if args.step == "train":
    posterior = pg.shard(backend, args.task, args.tasks).fit(model, events)
    posterior.save(f"shard{args.task}.h5")
elif args.step == "merge":
    posterior = pg.merge([pg.load(path) for path in sorted(Path().glob("shard*.h5"))])
    posterior.save("posterior.h5")
    print(posterior.info)
elif args.step == "generate":
    pg.load("posterior.h5").generate_to("events.json", share=(args.task, args.tasks), **generated)
else:
    pg.load("posterior.h5").generate_to("events.json", **generated)

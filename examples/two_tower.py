"""Recommendations: a user tower and an item tower whose embeddings lie in shards on parameter servers.

    tfdist launch --workers=2 --ps=2 examples/two_tower.py

Users and items have latent tastes; a user takes items near its own, some taken often and most seldom. The towers see
numbers of users and items alone and learn where both lie: each user's item is told apart from the others of the batch.
Recall@10 is how often an item that a user took, and that training never showed with it, is among the ten best for it.
Without the launcher it starts two workers and two parameter servers by itself: python examples/two_tower.py
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
import tensorflow as tf
from parameter_server import cluster

import tfdist

USERS, ITEMS, TASTES = 2_000, 500, 8
WIDTH = 32


def interactions(each: int = 40, seed: int = 0) -> np.ndarray:
    """Pairs of user and item, every user with as many different items, drawn by its taste."""
    random = np.random.default_rng(seed)
    users, items = (random.standard_normal((count, TASTES)) for count in (USERS, ITEMS))
    scores = 1.5 * users @ items.T + random.gumbel(size=(USERS, ITEMS))
    chosen = np.argsort(-scores, axis=1)[:, :each]
    return np.stack([np.repeat(np.arange(USERS), each), random.permuted(chosen, axis=1).ravel()], axis=1)


def load_data(split: str = "train", batch_size: int = 256) -> tf.data.Dataset:
    """Batches of (user, item) and the place of the right item in the batch; the last two items of a user are "test"."""
    pairs = interactions().reshape(USERS, -1, 2)
    pairs = pairs[:, :-2].reshape(-1, 2) if split == "train" else pairs[:, -2:].reshape(-1, 2)
    data = tf.data.Dataset.from_tensor_slices(pairs.astype("int32"))
    data = data.shuffle(len(pairs), seed=0) if split == "train" else data
    return data.batch(batch_size, drop_remainder=True).map(lambda pair: (pair, tf.range(batch_size)))


class TwoTowers(keras.Model):
    """Scores of each user of a batch with each item of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = keras.layers.Embedding(USERS, WIDTH), keras.layers.Embedding(ITEMS, WIDTH)

    def call(self, pairs: tf.Tensor) -> tf.Tensor:
        return keras.ops.matmul(self.users(pairs[:, 0]), keras.ops.transpose(self.items(pairs[:, 1])))


def recall(model: TwoTowers, best: int = 10) -> float:
    """Share of held-out pairs whose item is among the best of those that the user has not taken yet."""
    scores = model.users.embeddings.numpy() @ model.items.embeddings.numpy().T
    pairs = interactions().reshape(USERS, -1, 2)
    seen, held_out = pairs[:, :-2, 1], pairs[:, -2:, 1]
    np.put_along_axis(scores, seen, -np.inf, axis=1)
    ranked = np.argsort(-scores, axis=1)[:, :best]
    return float(np.mean((held_out[:, :, None] == ranked[:, None, :]).any(axis=2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=256, help="pairs of one worker's step")
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()

    with cluster(ps=2) as job:
        # So small a table would not need it: both are cut to show how. 256 << 20 is a good size.
        shards = tf.distribute.experimental.partitioners.MinSizePartitioner(min_shard_bytes=16 << 10, max_shards=2)
        strategy = tfdist.ParameterServerStrategy(job, variable_partitioner=shards)  # the chief goes on from here
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = TwoTowers()
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(0.01), loss)
            train = load_data("train", args.batch_size)

        model.fit(train, epochs=args.epochs, shuffle=False, verbose=2)
        chance = 10 / (ITEMS - 38)
        print(f"steps: {int(model.optimizer.iterations)}, recall@10: {recall(model):.3f}, by chance: {chance:.3f}")


if __name__ == "__main__":
    main()

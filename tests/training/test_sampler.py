import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.randomness import SampleKeys
from training.sampler import SampleOrder, batch_positions

SIZES = st.integers(1, 3000)


@given(num_samples=SIZES, seed=st.integers(0, 2**62), epoch=st.integers(0, 1000))
def test_every_epoch_sees_each_sample_once(num_samples: int, seed: int, epoch: int) -> None:
    positions = np.arange(epoch * num_samples, (epoch + 1) * num_samples)
    epochs, index = SampleOrder(seed, num_samples).at(positions)
    assert (epochs == epoch).all()
    assert np.array_equal(np.sort(index), np.arange(num_samples))


@given(num_samples=SIZES, start=st.integers(0, 100_000))
def test_a_position_is_found_without_those_before_it(num_samples: int, start: int) -> None:
    order = SampleOrder(1, num_samples)
    together = order.at(np.arange(start, start + 20))
    alone = [order.at(np.array([position])) for position in range(start, start + 20)]
    assert [int(index[0]) for _, index in alone] == together[1].tolist()


def test_orders_differ_between_epochs_and_seeds_and_look_random() -> None:
    first, second = (SampleOrder(0, 5000).at(np.arange(5000 * k, 5000 * (k + 1)))[1] for k in (0, 1))
    other = SampleOrder(1, 5000).at(np.arange(5000))[1]
    # A random permutation has about one fixed point, and neighbours a third of the range apart on average.
    for permutation in (first, second, other):
        assert abs(np.abs(np.diff(permutation)).mean() / 5000 - 1 / 3) < 0.02
        assert (permutation == np.arange(5000)).sum() < 10
    assert (first == second).sum() < 10
    assert (first == other).sum() < 10


@given(batch_size=st.integers(1, 64), world_size=st.integers(1, 8), step=st.integers(0, 1000))
def test_workers_share_a_batch_without_overlap(batch_size: int, world_size: int, step: int) -> None:
    shares = [batch_positions(step, batch_size, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares)) == list(range(step * batch_size, (step + 1) * batch_size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_sample_noise_is_uniform_and_its_own() -> None:
    index = np.arange(2000)
    keys = SampleKeys.of(0, np.zeros_like(index), index)
    numbers = keys.uniform("choose", np.full(2000, 50))
    assert 0 <= numbers.min() < 1e-3 and 1 - 1e-3 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.005
    assert len(np.unique(numbers)) == len(numbers)
    other_stream = keys.uniform("how", np.full(2000, 50))
    other_epoch = SampleKeys.of(0, np.ones_like(index), index).uniform("choose", np.full(2000, 50))
    for other in (other_stream, other_epoch):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.01
    # A sample's numbers do not depend on its neighbours or on how many numbers they want.
    one = SampleKeys(keys.keys[7:8]).uniform("choose", np.array([50]))
    assert np.array_equal(one, numbers[350:400])


@given(num_samples=SIZES, seed=st.integers(0, 2**62), data=st.data())
def test_where_a_sample_stands_is_found_without_a_search(num_samples: int, seed: int, data: st.DataObject) -> None:
    order = SampleOrder(seed, num_samples)
    one = data.draw(st.integers(0, num_samples - 1))
    epoch, index = order.at(order.positions(one, epochs=4))
    assert epoch.tolist() == [0, 1, 2, 3]
    assert (index == one).all()

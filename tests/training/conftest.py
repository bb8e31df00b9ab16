import lightning
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

C, K, H, W = 2, 1, 8, 16


class Fields(Dataset):
    """Whole batches of smooth random fields, each a function of its number."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 64

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(int(number))
        x = torch.randn(self.batch, C, H, W, generator=g)
        x = (x + x.roll(1, -1) + x.roll(-1, -1)) / 3**0.5
        return {"state": x, "cond": x[:, :K].roll(1, -1)}


class Steps(Sampler[int]):
    """Batch numbers of an epoch, from where a resumed run stands."""

    def __init__(self, steps: int, start: int) -> None:
        self.steps, self.start, self.epoch = steps, start, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self):
        first = self.epoch * self.steps
        yield from range(max(first, self.start), first + self.steps)


class Data(lightning.LightningDataModule):
    def __init__(self, batch: int = 4, steps: int = 5) -> None:
        super().__init__()
        self.batch, self.steps = batch, steps

    def train_dataloader(self):
        sampler = Steps(self.steps, self.trainer.global_step)
        return DataLoader(Fields(self.batch), batch_size=None, sampler=sampler)

    def val_dataloader(self):
        return DataLoader(Fields(self.batch), batch_size=None, sampler=[1000, 1001])


@pytest.fixture
def data():
    return Data()


@pytest.fixture(scope="session")
def new_data():
    return Data


@pytest.fixture(scope="session")
def quiet():
    """Trainer arguments of a test."""
    return {"enable_progress_bar": False, "log_every": 2, "accelerator": "cpu"}

"""Every way to change a model's weights: each a function of a `Subject`, by name in `OPERATIONS`.

An operation raises `NotApplicable` where it does not fit the model. What is "unseen" is a change that PyTorch
counts nowhere.
"""

import copy
import ctypes
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import dlpack, swap_tensors

from tests.helpers.random_elmo import OPERATIONS, NotApplicable, Subject, operation


def other_value(value: Any) -> float:
    return -1.5 if float(value) > 0 else 1.5


# ---- a number, a row or all of a weight, through something that shares its memory


def by_data(weight: Tensor) -> Any:
    return weight.data


def by_detached(weight: Tensor) -> Any:
    return weight.detach()


def by_numpy(weight: Tensor) -> Any:
    return weight.detach().numpy()


def by_data_numpy(weight: Tensor) -> Any:
    return weight.data.numpy()


def by_storage(weight: Tensor) -> Any:
    """A tensor of its own on the same memory."""
    alias = torch.empty(0, dtype=weight.dtype)
    return alias.set_(weight.untyped_storage(), weight.storage_offset(), weight.shape, weight.stride())


def by_dlpack(weight: Tensor) -> Any:
    return dlpack.from_dlpack(weight.detach())


def by_address(weight: Tensor) -> Any:
    """As C code changes it."""
    if weight.dtype != torch.float32 or not weight.is_contiguous():
        raise NotApplicable("not plain float32")
    numbers = ctypes.cast(weight.data_ptr(), ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(numbers, shape=tuple(weight.shape))


def by_other_parameter(weight: Tensor) -> Any:
    return nn.Parameter(weight.data).requires_grad_(False)


def by_no_grad(weight: Tensor) -> Any:
    return weight


ALIASES = [by_data, by_detached, by_numpy, by_data_numpy, by_storage, by_dlpack, by_address]
ALIASES += [by_other_parameter, by_no_grad]


def one_number(subject: Subject, module: Any, weight: Tensor, alias: Any) -> None:
    place = subject.place(module, weight)
    alias[place] = other_value(weight[place])


def one_row(subject: Subject, module: Any, weight: Tensor, alias: Any) -> None:
    place = subject.place(module, weight)[:1]
    alias[place] = 0.9 * alias[place] + 0.5


def all_numbers(subject: Subject, module: Any, weight: Tensor, alias: Any) -> None:
    alias[...] = -alias


def two_exchanged(subject: Subject, module: Any, weight: Tensor, alias: Any) -> None:
    """A sum of all numbers does not show it."""
    first, second = subject.place(module, weight), subject.place(module, weight)
    if first == second:
        raise NotApplicable("one place")
    number = float(alias[first])
    alias[first] = float(alias[second])
    alias[second] = number


def change(extent: Callable[..., None], make_alias: Callable[[Tensor], Any], subject: Subject) -> None:
    module, name = subject.weight()
    weight: Any = module._parameters[name]
    with torch.no_grad():
        extent(subject, module, weight, make_alias(weight))


for extent in (one_number, one_row, all_numbers, two_exchanged):
    for alias in ALIASES:
        OPERATIONS[f"{extent.__name__}_{alias.__name__}"] = functools.partial(change, extent, alias)


@operation
def one_bit_by_data(subject: Subject) -> None:
    """The last bit but eight, of the mantissa: a change by a thousandth or less, of a large number."""
    module, name = subject.weight()
    weight = module._parameters[name]
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    place = subject.place(module, weight)
    weight.data[place] = 1.0
    weight.data.view(bits)[place] ^= 1 << (3 if weight.element_size() == 2 else 18)


@operation
def one_number_and_back(subject: Subject) -> None:
    """Changed, used, and changed back, unseen."""
    module, name = subject.weight()
    weight, place = module._parameters[name], subject.place(module, module._parameters[name])
    before = float(weight.data[place])
    weight.data[place] = other_value(before)
    subject.use()
    weight.data[place] = before


@operation
def nan_by_data(subject: Subject) -> None:
    module, name = subject.weight()
    weight = module._parameters[name]
    weight.data[subject.place(module, weight)] = float(subject.random.choice(["nan", "inf", "-inf"]))
    subject.has_nan = True


@operation
def magnitude_pruning_by_data(subject: Subject) -> None:
    weight = subject.parameter("input_weight", "recurrent_weight", "projection").data
    weight[weight.abs() < weight.abs().median()] = 0


@operation
def in_inference_mode(subject: Subject) -> None:
    module, name = subject.weight()
    weight = module._parameters[name]
    with torch.inference_mode():
        weight[subject.place(module, weight)] = 1.5


@operation
def warm_state(subject: Subject) -> None:
    bilm = subject.bilm
    if not bilm.config.has_warm_state:
        raise NotApplicable("no warm state")
    name = subject.random.choice(["warm_h", "warm_c"])
    how, buffer = subject.random.randrange(4), bilm._buffers[name]
    if how == 0:
        buffer.data[subject.random.randrange(len(buffer)), 0, 0, 0] += 1.0
    elif how == 1:
        setattr(bilm, name, torch.full_like(buffer, 0.5))
    elif how == 2:
        with torch.no_grad():
            buffer.neg_()
    else:
        bilm.warm_up(["tenth ether", "he"])


# ---- memory that others share


@operation
def from_another_process(subject: Subject) -> None:
    subject.model.share_memory()
    subject.use()
    module, name = subject.weight()
    numbers = module._parameters[name].detach().numpy()
    place = subject.place(module, module._parameters[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which do nothing here
        child = os.fork()
    if child == 0:
        numbers[place] = other_value(numbers[place])
        os._exit(0)
    os.waitpid(child, 0)


@operation
def from_another_mapping_of_a_file(subject: Subject) -> None:
    """Weights that lie in a file, which is written to."""
    module, name = subject.weight()
    weight, path = module._parameters[name], subject.folder / f"weight{len(subject.keep)}"
    if weight.dtype != torch.float32:
        raise NotApplicable("not float32")
    weight.detach().contiguous().numpy().tofile(path)
    mapped = torch.from_file(str(path), shared=True, size=weight.numel()).view(weight.shape)
    setattr(module, name, nn.Parameter(mapped, requires_grad=weight.requires_grad))
    subject.use()
    other = np.memmap(path, np.float32, "r+", shape=tuple(weight.shape))
    place = subject.place(module, weight)
    other[place] = other_value(other[place])
    subject.keep.append(other)


@operation
def state_dict_in_a_mapped_file(subject: Subject) -> None:
    path = subject.folder / f"state{len(subject.keep)}.pt"
    torch.save(subject.model.state_dict(), path)
    subject.model.load_state_dict(torch.load(path, mmap=True), assign=True)
    subject.keep.append(path)


def flatten(subject: Subject) -> Tensor:
    """All parameters as views of one vector, as for distributed training."""
    parameters = list(subject.bilm.parameters())
    if len({parameter.dtype for parameter in parameters}) > 1:
        raise NotApplicable("several types")
    flat = torch.nn.utils.parameters_to_vector([p.detach() for p in parameters])
    torch.nn.utils.vector_to_parameters(flat, parameters)
    return flat


@operation
def views_of_a_vector(subject: Subject) -> None:
    """The vector is changed, now and later."""
    flat = flatten(subject)
    subject.use()
    flat[subject.random.randrange(len(flat)) :] *= -1
    subject.keep.append(flat)


@operation
def views_of_a_vector_as_new_parameters(subject: Subject) -> None:
    flat = torch.cat([module._parameters[name].detach().flatten() for module, name in subject.weights()])
    start = 0
    for module, name in subject.weights():
        old = module._parameters[name]
        view = flat[start : start + old.numel()].view(old.shape)
        setattr(module, name, nn.Parameter(view, requires_grad=old.requires_grad))
        start += old.numel()
    subject.use()
    flat[subject.random.randrange(len(flat)) :: 3] += 0.3
    subject.keep.append(flat)


@operation
def what_is_shared_changes(subject: Subject) -> None:
    """The vector or the other model of an earlier operation."""
    flats = [flat for flat in subject.keep if isinstance(flat, (Tensor, np.ndarray)) and flat.dtype != bool]
    flats = flats or [flatten(subject)]
    subject.use()
    flat = subject.random.choice(flats)
    flat[...] = flat * 0.8 + 0.1


@operation
def shared_with_another_model(subject: Subject) -> None:
    other = copy.deepcopy(subject.bilm)
    for mine, others in zip(subject.bilm.parameters(), other.parameters(), strict=True):
        others.data = mine.data
    subject.use()
    for weight in other.parameters():
        weight.data.mul_(0.9)
    subject.keep.append(next(other.parameters()).data)


# ---- other parameters


def replace(subject: Subject, make: Callable[[Tensor], Tensor], *names: str) -> tuple[Any, str, Any]:
    module, name = subject.weight(*names)
    old = module._parameters[name]
    made = make(old)
    new = made if isinstance(made, nn.Parameter) else nn.Parameter(made, requires_grad=old.requires_grad)
    setattr(module, name, new)
    return module, name, new


@operation
def new_parameter(subject: Subject) -> None:
    replace(subject, lambda old: old.detach() + subject.noise(old))


@operation
def parameter_deleted_and_made_again(subject: Subject) -> None:
    """Several times, so that the new one may lie where the old one lay."""
    module, name = subject.weight()
    for _ in range(4):
        values, needs = module._parameters[name].detach() * -1, module._parameters[name].requires_grad
        values.view(-1)[subject.random.randrange(values.numel())] += 1
        delattr(module, name)
        setattr(module, name, nn.Parameter(values, requires_grad=needs))
        del values
        subject.use()


@operation
def register_parameter(subject: Subject) -> None:
    module, name = subject.weight()
    old = module._parameters[name]
    module.register_parameter(name, nn.Parameter(subject.noise(old), requires_grad=old.requires_grad))


@operation
def data_assigned(subject: Subject) -> None:
    weight = subject.parameter()
    weight.data = weight.data + subject.noise(weight)


@operation
def data_assigned_several_times(subject: Subject) -> None:
    weight = subject.parameter()
    for _ in range(4):
        weight.data = -weight.data
        weight.data.view(-1)[subject.random.randrange(weight.numel())] += 1
        subject.use()


@operation
def set_storage(subject: Subject) -> None:
    weight = subject.parameter()
    target = weight.data if subject.random.random() < 0.5 else weight
    with torch.no_grad():
        target.set_(weight.detach().clone().neg_())


@operation
def storage_copied(subject: Subject) -> None:
    weight = subject.parameter()
    if not weight.is_contiguous() or weight.untyped_storage().nbytes() != weight.nbytes:
        raise NotApplicable("a view")
    weight.untyped_storage().copy_(subject.noise(weight).untyped_storage())


@operation
def tensors_swapped(subject: Subject) -> None:
    weight = subject.parameter()
    swap_tensors(weight, nn.Parameter(subject.noise(weight), requires_grad=weight.requires_grad))


@operation
def two_weights_exchanged(subject: Subject) -> None:
    if len(subject.bilm.layers) < 2:
        raise NotApplicable("one layer")
    first, second = subject.bilm.layers[0], subject.bilm.layers[-1]
    first.bias, second.bias = second.bias, first.bias


@operation
def tied_weights(subject: Subject) -> None:
    if len(subject.bilm.layers) < 2:
        raise NotApplicable("one layer")
    name = subject.random.choice(["recurrent_weight", "bias"])
    setattr(subject.bilm.layers[-1], name, getattr(subject.bilm.layers[0], name))


@operation
def transposed_in_memory(subject: Subject) -> None:
    replace(
        subject, lambda old: old.detach().mT.contiguous().mT, "input_weight", "recurrent_weight", "weight"
    )


@operation
def with_gaps_in_memory(subject: Subject) -> None:
    def spread(old: Tensor) -> Tensor:
        wide = torch.zeros(*old.shape, 2, dtype=old.dtype)
        wide[..., 0] = old.detach()
        return wide[..., 0]

    module, _, new = replace(subject, spread)
    subject.use()
    place = subject.place(module, new)
    new.data[place] = other_value(new[place])


@operation
def expanded(subject: Subject) -> None:
    """Both directions are one row of memory."""
    *_, new = replace(subject, lambda old: old.detach()[:1].clone().expand(old.shape))
    subject.use()
    base = new.data[0]
    base.neg_() if base.dim() else None


@operation
def negative_view(subject: Subject) -> None:
    """A tensor whose memory holds the negative numbers."""
    replace(subject, lambda old: torch._neg_view(old.detach().clone()))


@operation
def subclass_of_parameter(subject: Subject) -> None:
    class Weight(nn.Parameter):
        pass

    replace(subject, lambda old: Weight(subject.noise(old), requires_grad=old.requires_grad))


@operation
def tensor_subclass_with_functions_of_its_own(subject: Subject) -> None:
    """Such as quantised weights are: what an operator makes of them is not what their memory holds."""
    replace(subject, lambda old: nn.Parameter(Halved(old.detach()), requires_grad=old.requires_grad))


class Halved(Tensor):
    """Is read as half of what its memory holds by everything but attributes and methods in place."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in READERS:
            return super().__torch_function__(function, types, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*map(halved, args), **(kwargs or {}))


def halved(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(halved, value))
    return value.as_subclass(Tensor) * 0.5 if isinstance(value, Halved) else value


F = nn.functional
READERS = {F.linear, F.embedding, torch.einsum, torch.baddbmm, torch.bmm, torch.conv1d, F.conv1d}

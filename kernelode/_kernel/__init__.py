from .checked import checked_entries as checked_entries, checked_kernel as checked_kernel
from .elements import (
    element_inputs as element_inputs,
    element_numbers as element_numbers,
    input_pairs as input_pairs,
    own_elements as own_elements,
    pair_numbers as pair_numbers,
    symmetric as symmetric,
)
from .input import input_kernel as input_kernel
from .kinds import (
    AbstractKernel as AbstractKernel,
    Block as Block,
    Kernel as Kernel,
    Variances as Variances,
    as_block as as_block,
    as_matrix as as_matrix,
)
from .triangle import (
    Triangle as Triangle,
    as_triangle as as_triangle,
    fold as fold,
    sides as sides,
    unfold as unfold,
)

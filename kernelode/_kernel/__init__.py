from .checked import checked_entries as checked_entries, checked_kernel as checked_kernel
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

"""What the kernels over rows of tokens share."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile(rows, DIM: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """This program's rows (BLOCK_ROWS, 1), columns (1, BLOCK_D), and which places exist.

    Rows are int64: a long clip has more than 2^31 values.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    column = tl.arange(0, BLOCK_D)[None, :]
    return row, column, (row < rows) & (column < DIM)


@triton.jit
def layernorm(x, column, DIM: tl.constexpr, eps):
    """LN of each row of x, fp32, which is 0 beyond DIM."""
    centred = tl.where(column < DIM, x - tl.sum(x, axis=1, keep_dims=True) / DIM, 0.0)
    variance = tl.sum(centred * centred, axis=1, keep_dims=True) / DIM
    return centred * tl.rsqrt(variance + eps)

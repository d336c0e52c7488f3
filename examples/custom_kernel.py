"""A CUDA kernel of one's own, differentiated: the Lennard-Jones potential of argon, fitted.

    python examples/custom_kernel.py

On a GPU the energy is one kernel, the text below, and so is its derivative in all three arguments,
which is derived from the text. On the CPU the twin, read from the same text, does the work.
"""

import gpugrad as gg

# depth in kelvin, size and r in angstrom
energy = gg.elementwise_kernel(
    "T r, T depth, T size",
    "T y",
    """
    T q = pow(size / r, 6);
    y = 4 * depth * (q * q - q);
    """,
    "lennard_jones",
)

# the same with a function of one's own: the derivative is stated, in r alone, and the twin is given
by_hand = gg.elementwise_kernel(
    "T r, T depth, T size",
    "T y",
    "y = 4 * depth * (power6(size / r) - 1) * power6(size / r)",
    "lennard_jones_by_hand",
    derivative={
        "r": "24 * depth * (1 - 2 * power6(size / r)) * power6(size / r) / r",
        "depth": None,
        "size": None,
    },
    twin=lambda r, depth, size: 4 * depth * ((size / r) ** 6 - 1) * (size / r) ** 6,
    preamble="""
    template <typename T> __device__ T power6(T x) { T cube = x * x * x; return cube * cube; }
    """,
)

DEPTH, SIZE = 119.8, 3.405  # Rahman (1964)


def force(r, depth, size, kernel=energy):
    """-d energy / d r, of every pair at once."""
    return -gg.grad(lambda r: gg.sum(kernel(r, depth, size)))(r)


def fit(r, measured, steps=300):
    """Depth and size that fit measured energies, by descent in their logarithms."""
    p = gg.asarray(gg.log(gg.asarray([80.0, 3.3], dtype="float64")), requires_grad=True)
    optimizer = gg.optim.Adam([p], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        depth, size = gg.exp(p)
        gg.mean((energy(r, depth, size) - measured) ** 2).backward()
        optimizer.step()
    return gg.exp(p.detach())


def main():
    r = gg.linspace(3.3, 8.0, 60, dtype="float64")
    gg.testing.check_grads(energy, [r, gg.asarray(2.0), gg.asarray(3.405)])
    gg.testing.check_grads(lambda r: by_hand(r, 2.0, 3.405), [r])
    gap = gg.max(gg.abs(force(r, DEPTH, SIZE) - force(r, DEPTH, SIZE, by_hand)))
    print(f"derivatives checked; the two forces differ by {float(gap):.0e} kelvin per angstrom")

    gg.random.seed(0)
    measured = energy(r, DEPTH, SIZE) + gg.random.normal(scale=2.0, shape=r.shape)
    depth, size = fit(r, measured)
    print(
        f"depth {float(depth):.1f} K (true {DEPTH}), size {float(size):.3f} angstrom (true {SIZE})"
    )


if __name__ == "__main__":
    main()

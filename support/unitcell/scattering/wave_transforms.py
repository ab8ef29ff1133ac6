"""Waves between real space and the frequencies within the band limit, the only costly step of multislice.

A third of a band-limited wave's columns in reciprocal space is zero, so on a CPU the two passes of the
Fourier transform are done one after the other, in place, and the second one leaves those columns out.
The frequencies along y start at the lowest one that is kept: the columns that are kept then lie side by
side, and in real space the wave only carries a phase ramp, which every multiplication by a transmission
function leaves alone.
"""

import pyfftw
import torch


class FftwWaves:
    """A batch of waves in one aligned buffer, transformed in place by FFTW, on the thread that calls.

    Parameters
    ----------
    shape : (C, B, X, Y)
        Configurations, waves and grid points.
    columns : int
        Number of frequencies along y that are kept.
    dtype : real torch dtype
    device : torch device
        Not used.
    """

    def __init__(self, shape, columns, dtype, device=None):
        buffer = pyfftw.zeros_aligned(shape, dtype="complex64" if dtype == torch.float32 else "complex128")
        band = buffer[..., :columns]
        self._rows_forward, self._rows_backward = self._plans(buffer, axis=3)
        self._columns_forward, self._columns_backward = self._plans(band, axis=2)
        self.wave = torch.from_numpy(buffer)
        self.band = self.wave[..., :columns]
        self._beyond = self.wave[..., columns:]

    @staticmethod
    def _plans(array, axis):
        forward = pyfftw.FFTW(array, array, axes=(axis,), direction="FFTW_FORWARD")
        return forward, pyfftw.FFTW(array, array, axes=(axis,), direction="FFTW_BACKWARD", normalise_idft=False)

    def to_real(self):
        """Take `band` (C, B, X, columns) to `wave` (C, B, X, Y), with no factor."""
        self._beyond.zero_()
        self._columns_backward.execute()
        self._rows_backward.execute()

    def to_band(self):
        """Take `wave` to `band`, with no factor."""
        self._rows_forward.execute()
        self._columns_forward.execute()


class TorchWaves:
    """The same on any device of PyTorch; see `FftwWaves`."""

    def __init__(self, shape, columns, dtype, device):
        complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.columns = columns
        self.wave = torch.zeros(shape, dtype=complex_dtype, device=device)
        self.band = self.wave[..., :columns]

    def to_real(self):
        """Take `band` (C, B, X, columns) to `wave` (C, B, X, Y), with no factor."""
        rows = torch.fft.ifft(self.band, dim=-2, norm="forward")
        self.wave = torch.fft.ifft(rows, n=self.wave.shape[-1], dim=-1, norm="forward")

    def to_band(self):
        """Take `wave` to `band`, with no factor."""
        self.band = torch.fft.fft(torch.fft.fft(self.wave, dim=-1)[..., : self.columns], dim=-2)


def waves_for(device):
    """The class that is fastest on a device, and how many arrays of the grid's size it needs for one wave."""
    return (FftwWaves, 2) if torch.device(device).type == "cpu" else (TorchWaves, 4)

// Patches of images (im2col), the sums of overlapping patches (col2im), and the convolution of
// sequences. Every entry of a result gathers what goes into it in a fixed order, without atomics.
namespace gpugrad {

// One axis of an image, and the places at which a window of `size` taps stands on it.
template <class I> struct window { I length, size, count, stride, padding, dilation; };

// the entry under a tap of the window at a place; -1 in the padding
template <class I> __device__ I entry_under(const window<I> &w, I place, I tap) {
  const I i = place * w.stride - w.padding + tap * w.dilation;
  return i < w.length ? (i < 0 ? I(-1) : i) : I(-1);
}

// the place at which a tap of the window is over an entry; -1 if there is none
template <class I> __device__ I place_over(const window<I> &w, I entry, I tap) {
  const I start = entry + w.padding - tap * w.dilation;
  if (start < 0 || start % w.stride != 0) return I(-1);
  const I place = start / w.stride;
  return place < w.count ? place : I(-1);
}

// entry i of the patches, (channels, taps, taps, images, places, places), of the images `x`,
// (images, channels, rows, columns)
template <class T, class X, class I>
__device__ T patch_entry(const X &x, I i, I images, I channels, window<I> rows, window<I> columns) {
  const I place_c = i % columns.count;
  i /= columns.count;
  const I place_r = i % rows.count;
  i /= rows.count;
  const I image = i % images;
  i /= images;
  const I tap_c = i % columns.size;
  i /= columns.size;
  const I row = entry_under(rows, place_r, I(i % rows.size));
  const I column = entry_under(columns, place_c, tap_c), channel = i / rows.size;
  if (row < 0 || column < 0) return T(0);
  return x[((image * channels + channel) * rows.length + row) * columns.length + column];
}

// entry i of the images whose patches are laid over each other and added
template <class T, class X, class I>
__device__ T patch_sum(const X &x, I i, I images, I channels, window<I> rows, window<I> columns) {
  const I column = i % columns.length;
  i /= columns.length;
  const I row = i % rows.length;
  i /= rows.length;
  const I channel = i % channels, image = i / channels;
  wide<T> total(0);
  for (I tap_r = 0; tap_r < rows.size; ++tap_r) {
    const I place_r = place_over(rows, row, tap_r);
    if (place_r < 0) continue;
    for (I tap_c = 0; tap_c < columns.size; ++tap_c) {
      const I place_c = place_over(columns, column, tap_c);
      if (place_c < 0) continue;
      const I tap = (channel * rows.size + tap_r) * columns.size + tap_c;
      total += widen(T(x[((tap * images + image) * rows.count + place_r) * columns.count + place_c]));
    }
  }
  return static_cast<T>(total);
}

// entry k of the full convolution of a, of m entries, with b, of n
template <class T, class A, class B>
__device__ T convolved(const A &a, const B &b, long long k, long long m, long long n) {
  wide<T> total(0);
  const long long last = k < n ? k : n - 1;
  for (long long j = k < m ? 0 : k - m + 1; j <= last; ++j)
    total += widen(T(a[k - j])) * widen(T(b[j]));
  return static_cast<T>(total);
}

}  // namespace gpugrad

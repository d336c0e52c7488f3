// The type a kernel computes in: T itself, and float for the two-byte types.
namespace gpugrad {

template <class T, int bytes = sizeof(T)> struct wide_of { using type = T; };
template <class T> struct wide_of<T, 2> { using type = float; };
template <class T> using wide = typename wide_of<T>::type;

template <class T> __device__ wide<T> widen(T x) { return static_cast<wide<T>>(x); }

}  // namespace gpugrad

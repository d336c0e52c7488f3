// The larger, the smaller, the sign; NaN where an argument is NaN.
namespace gpugrad {

template <class T> __device__ T maximum(T a, T b) { return a != a || a > b ? a : b; }
template <class T> __device__ T minimum(T a, T b) { return a != a || a < b ? a : b; }

template <class T> __device__ T sign(T x) { return x != x ? x : T((x > T(0)) - (x < T(0))); }

}  // namespace gpugrad

// Log-sum-exp in one pass (Milakov & Gimelshein 2018, arXiv:1805.02867), and what follows from it.
namespace gpugrad {

// A sum of exponentials as total * exp(top), with top the largest exponent so far. A total of 0 is
// the empty sum.
template <class T> struct exp_sum {
  using W = wide<T>;
  W top, total;
  __device__ exp_sum() : top(0), total(0) {}
  __device__ explicit exp_sum(T x) : top(widen(x)), total(1) {}
};

// Equal tops, which may be infinite, are not subtracted; NaN gets into total and stays there.
template <class T> __device__ exp_sum<T> add(exp_sum<T> a, exp_sum<T> b) {
  if (a.total == 0) return b;
  if (b.total == 0) return a;
  const exp_sum<T> high = b.top > a.top ? b : a, low = b.top > a.top ? a : b;
  exp_sum<T> sum = high;
  sum.total += high.top == low.top ? low.total : low.total * exp(low.top - high.top);
  return sum;
}

template <class T> __device__ wide<T> log_of(exp_sum<T> sum) { return sum.top + log(sum.total); }

template <class T, class W> __device__ T softmax(T x, W top, W total) {
  return static_cast<T>(exp(widen(x) - top) / total);
}

template <class T, class W> __device__ T log_softmax(T x, W top, W total) {
  return static_cast<T>((widen(x) - top) - log(total));
}

// a class number in [0, classes), counted from the end if negative; what is out of range wraps
template <class L> __device__ long long wrapped(L label, long long classes) {
  const long long k = static_cast<long long>(label);
  if (0 <= k && k < classes) return k;  // without the division, which every element would do
  const long long rest = k % classes;
  return rest < 0 ? rest + classes : rest;
}

// -log_softmax(x)[label], given the x of the label
template <class T, class W> __device__ T cross_entropy(T x, W top, W total) {
  return static_cast<T>(log(total) - (widen(x) - top));
}

// its derivative with respect to one x
template <class T, class W>
__device__ T cross_entropy_grad(T g, T x, W top, W total, bool is_label) {
  return static_cast<T>(widen(g) * (exp(widen(x) - top) / total - W(is_label)));
}

}  // namespace gpugrad

// One step of an optimiser on one parameter, in place. Settings come as double, because 1 - beta
// must not be rounded twice; state S may be wider than the parameter.
namespace gpugrad {

template <class T> __device__ void sgd_step(T &param, T grad, double lr) {
  using W = wide<T>;
  param = static_cast<T>(widen(param) - W(lr) * widen(grad));
}

// velocity = momentum velocity + grad; param -= lr velocity
template <class T, class S>
__device__ void sgd_step(T &param, S &velocity, T grad, double lr, double momentum) {
  using W = wide<T>;
  const W v = W(momentum) * W(widen(velocity)) + widen(grad);
  velocity = static_cast<S>(v);
  param = static_cast<T>(widen(param) - W(lr) * v);
}

// Kingma & Ba 2015, algorithm 1, at step t: rate1 = 1 - beta1, rate2 = 1 - beta2,
// power1 = beta1^t, power2 = beta2^t. Nothing is divided in double, which many GPUs do slowly.
template <class T, class S>
__device__ void adam_step(T &param, S &m, S &v, T grad, double lr, double rate1, double rate2,
                          double eps, double power1, double power2) {
  using W = wide<T>;
  const W step = W(lr) / W(1 - power1), bias2 = W(1 - power2);
  const W g = widen(grad), m_old = W(widen(m)), v_old = W(widen(v));
  const W m_new = m_old + W(rate1) * (g - m_old);
  const W v_new = v_old + W(rate2) * (g * g - v_old);
  m = static_cast<S>(m_new);
  v = static_cast<S>(v_new);
  param = static_cast<T>(widen(param) - step * m_new / (sqrt(v_new / bias2) + W(eps)));
}

}  // namespace gpugrad

// Special functions that CuPy has not, or not right everywhere. Computed in double whatever the type,
// unless a function says otherwise. To be included after activations.cuh.
namespace gpugrad {

__device__ inline double infinity() { return -log(0.0); }  // NVRTC has no name for it

// exp(x^2) erfc(x): from 5 on by Laplace's continued fraction
__device__ inline double scaled_erfc(double x) {
  if (x > 5) {
    double k = 0;
    for (int n = 40; n > 0; --n) k = 0.5 * n / (x + k);
    return 0.56418958354775628695 / (x + k);
  }
  const double square = x * x, lost = fma(x, x, -square), e = exp(square);
  return isinf(e) ? e : (e + e * lost) * ::erfc(x);
}

template <class T> __device__ T erfcx(T x) {
  return static_cast<T>(scaled_erfc(static_cast<double>(widen(x))));
}

template <class T> __device__ T ndtr(T x) { return static_cast<T>(normal_cdf(widen(x))); }

// log(Phi(x))
template <class T> __device__ T log_ndtr(T x_) {
  const double x = widen(x_);
  if (x < -1) {
    const double half = 0.5 * x * x;
    return static_cast<T>(log(0.5 * scaled_erfc(-0.70710678118654752440 * x)) - half);
  }
  return static_cast<T>(log1p(-normal_cdf(-x)));
}

// the inverse of Phi: Abramowitz and Stegun 26.2.23, then Newton's method, in the tails for log(Phi)
template <class T> __device__ T ndtri(T p_) {
  const double p = widen(p_), q = fmin(p, 1 - p), log_q = log(q), t = sqrt(-2 * log_q);
  if (!(q > 0)) {
    return static_cast<T>(p == 0 ? -infinity() : p == 1 ? infinity() : nan(""));
  }
  double x = (2.515517 + t * (0.802853 + t * 0.010328))
      / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
  for (int i = 0; i < 3; ++i) {
    const double y = -0.70710678118654752440 * x, tail = 0.5 * scaled_erfc(y), square = 0.5 * x * x;
    x -= 2.50662827463100050242 * (q > 0.2 ? ((0.5 - q) - 0.5 * ::erf(y)) * exp(square)
                                           : (log(tail) - square - log_q) * tail);
  }
  return static_cast<T>(p > 0.5 ? -x : x);
}

template <class T> __device__ T logit(T x_) {
  using W = wide<T>;
  const W x = widen(x_), s = W(2) * (x - W(0.5));
  return static_cast<T>(fabs(s) < W(0.5) ? log1p(s) - log1p(-s) : log(x / (W(1) - x)));
}

template <class T> __device__ T xlogy(T x_, T y_) {
  using W = wide<T>;
  const W x = widen(x_), y = widen(y_);
  return static_cast<T>(x == 0 && !isnan(y) ? W(0) : x * log(y));
}

template <class T> __device__ T xlog1py(T x_, T y_) {
  using W = wide<T>;
  const W x = widen(x_), y = widen(y_);
  return static_cast<T>(x == 0 && !isnan(y) ? W(0) : x * log1p(y));
}

template <class T> __device__ T entr(T x_) {
  using W = wide<T>;
  const W x = widen(x_);
  return static_cast<T>(x < 0 ? W(-infinity()) : x == 0 ? W(0) : -x * log(x));
}

template <class W> __device__ W relative(W x, W y, W positive, W at_zero) {
  if (isnan(x) || isnan(y)) return x + y;
  return x > 0 && y > 0 ? positive : x == 0 && y >= 0 ? at_zero : W(infinity());
}

template <class T> __device__ T rel_entr(T x_, T y_) {
  using W = wide<T>;
  const W x = widen(x_), y = widen(y_);
  return static_cast<T>(relative(x, y, x * log(x / y), W(0)));
}

template <class T> __device__ T kl_div(T x_, T y_) {
  using W = wide<T>;
  const W x = widen(x_), y = widen(y_);
  return static_cast<T>(relative(x, y, x * log(x / y) - x + y, y));
}

template <class T> __device__ T huber(T delta_, T r_) {
  using W = wide<T>;
  const W delta = widen(delta_), r = widen(r_), size = fabs(r);
  const W out = size <= delta ? W(0.5) * r * r : delta * (size - W(0.5) * delta);
  return static_cast<T>(delta < 0 ? W(infinity()) : out);
}

template <class T> __device__ T pseudo_huber(T delta_, T r_) {
  using W = wide<T>;
  const W delta = widen(delta_), r = widen(r_), size = fabs(r);
  const W share = isinf(size) ? W(1) : size / (delta + hypot(delta, r));
  const W out = delta == 0 || r == 0 ? W(0) : delta * (size * share);
  return static_cast<T>(delta < 0 ? W(infinity()) : out);
}

// sin(pi x) / (pi x)
template <class T> __device__ T sinc(T x_) {
  const double y = 3.14159265358979323846 * widen(x_);
  return static_cast<T>(y == 0 ? 1.0 : sin(y) / y);
}

// (exp(x) - 1) / x
template <class T> __device__ T exprel(T x_) {
  const double x = widen(x_);
  return static_cast<T>(x == 0 ? 1.0 : x == infinity() ? x : expm1(x) / x);
}

// 1 / Gamma(x)
template <class T> __device__ T rgamma(T x_) {
  const double x = widen(x_);
  return static_cast<T>(x <= 0 && x == floor(x) ? 0.0 : 1 / tgamma(x));
}

// the logarithmic derivative of Gamma: upwards recurrence, then Abramowitz and Stegun 6.3.18
__device__ inline double digamma_of(double x) {
  double out = 0;
  if (x <= 0) {
    if (x == floor(x)) return x == 0 ? copysign(infinity(), -x) : nan("");
    out = -3.14159265358979323846 / tan(3.14159265358979323846 * (x - rint(x)));
    x = 1 - x;
  }
  for (; x < 10; x += 1) out -= 1 / x;
  const double u = 1 / (x * x);
  const double series = 1.0 / 12 - u * (1.0 / 120 - u * (1.0 / 252 - u * (1.0 / 240
      - u * (1.0 / 132 - u * 691.0 / 32760))));
  return out + log(x) - 0.5 / x - u * series;
}

template <class T> __device__ T digamma(T x) {
  return static_cast<T>(digamma_of(static_cast<double>(widen(x))));
}

// The modified Bessel functions of order n = 0 or 1, times exp(-x) and exp(x), for x >= 0. From 25
// on by Hankel's expansions (Abramowitz and Stegun 9.7.1 and 9.7.2).
__device__ inline double hankel(int n, double x, double sign) {
  double term = 1, sum = 1;
  for (int k = 1; k < 20; ++k) {
    term *= sign * (4 * n * n - (2 * k - 1) * (2 * k - 1)) / (8 * k * x);
    sum += term;
  }
  return sum;
}

__device__ inline double scaled_i(int n, double x) {
  if (!(x < 25)) return isnan(x) ? x : hankel(n, x, -1) * (0.39894228040143267794 / sqrt(x));
  const double q = 0.25 * x * x;
  double term = n ? 0.5 * x : 1, sum = term;
  for (int k = 1; k < 200 && term > 1e-17 * sum; ++k) {
    term *= q / (k * (k + n));
    sum += term;
  }
  return exp(-x) * sum;
}

// below 1 by the power series, then the trapezoidal rule for the integral of exp(-x cosh t) cosh(n t)
__device__ inline double scaled_k(int n, double x) {
  if (!(x >= 0)) return nan("");
  if (x == 0) return infinity();
  if (x >= 25) return hankel(n, x, 1) * sqrt(1.57079632679489661923 / x);
  if (x < 1) {
    const double q = 0.25 * x * x, log_part = log(x) - 0.69314718055994530942;
    // psi(k + 1) + psi(k + n + 1), from k = 0 on
    double psi = -1.15443132980306572121 + n, term = n ? 0.5 * x : 1, sum = 0;
    for (int k = 0; k < 16; ++k) {
      sum += term * (log_part - 0.5 * psi);
      psi += 1.0 / (k + 1) + 1.0 / (k + 1 + n);
      term *= q / ((k + 1) * (k + 1 + n));
    }
    return exp(x) * (n ? 1 / x + sum : -sum);
  }
  const double h = 0.125;
  double sum = 0.5;
  for (int i = 1; i < 48; ++i) {
    const double t = h * i, s = sinh(0.5 * t);
    sum += exp(-2 * x * s * s) * (n ? cosh(t) : 1.0);
  }
  return h * sum;
}

template <class T> __device__ T i0e(T x) {
  return static_cast<T>(scaled_i(0, fabs(double(widen(x)))));
}
template <class T> __device__ T i1e(T x) {
  return static_cast<T>(copysign(scaled_i(1, fabs(double(widen(x)))), double(widen(x))));
}
template <class T> __device__ T i0(T x_) {
  const double x = fabs(double(widen(x_)));
  return static_cast<T>(x > 1000 ? infinity() : exp(0.5 * x) * scaled_i(0, x) * exp(0.5 * x));
}
template <class T> __device__ T i1(T x_) {
  const double x = fabs(double(widen(x_)));
  const double out = x > 1000 ? infinity() : exp(0.5 * x) * scaled_i(1, x) * exp(0.5 * x);
  return static_cast<T>(copysign(out, double(widen(x_))));
}
template <class T> __device__ T k0e(T x) { return static_cast<T>(scaled_k(0, widen(x))); }
template <class T> __device__ T k1e(T x) { return static_cast<T>(scaled_k(1, widen(x))); }
template <class T> __device__ T k0(T x) {
  return static_cast<T>(scaled_k(0, widen(x)) * exp(-double(widen(x))));
}
template <class T> __device__ T k1(T x) {
  return static_cast<T>(scaled_k(1, widen(x)) * exp(-double(widen(x))));
}

// the complete elliptic integral E(m) by the arithmetic-geometric mean (Abramowitz and Stegun 17.6)
template <class T> __device__ T ellipe(T m_) {
  const double m = widen(m_);
  if (!(m < 1)) return static_cast<T>(m == 1 ? 1.0 : nan(""));
  if (isinf(m) && m < 0) return static_cast<T>(infinity());
  double a = 1, b = sqrt(1 - m), sum = 0.5 * m, power = 0.5;
  for (int i = 0; i < 40 && fabs(a - b) > 1e-16 * a; ++i) {
    const double c = 0.5 * (a - b), mean = 0.5 * (a + b);
    b = sqrt(a * b);
    a = mean;
    power *= 2;
    sum += power * c * c;
  }
  return static_cast<T>(1.57079632679489661923 / a * (1 - sum));
}

// the dilogarithm of z = 1 - x: brought to 0 <= z <= 1/2, then the series of Bernoulli numbers in
// -log(1 - z) (Abramowitz and Stegun 27.7; 't Hooft and Veltman 1979)
__device__ inline double dilogarithm(double z) {
  const double u = -log1p(-z), q = u * u;
  const double c[] = {1.0 / 36, -1.0 / 3600, 1.0 / 211680, -1.0 / 10886400, 1.0 / 526901760,
                      -4.0647616451442255e-11, 8.9216910204564526e-13, -1.9939295860721076e-14,
                      4.5189800296199182e-16};
  double sum = 0;
  for (int k = 8; k >= 0; --k) sum = sum * q + c[k];
  return u - 0.25 * q + u * q * sum;
}

template <class T> __device__ T spence(T x_) {
  const double x = widen(x_), zeta2 = 1.64493406684822643647;
  if (!(x >= 0)) return static_cast<T>(nan(""));
  if (isinf(x)) return static_cast<T>(-x);
  if (x == 0) return static_cast<T>(zeta2);
  const double far = log(x - 1), near = log1p(-1 / x);
  double out;
  if (x < 0.5) out = zeta2 - log(x) * log1p(-x) - dilogarithm(x);
  else if (x <= 1) out = dilogarithm(1 - x);
  else if (x < 2) out = -dilogarithm((x - 1) / x) - 0.5 * log(x) * log(x);
  else out = dilogarithm(1 / x) - zeta2 - 0.5 * far * far + 0.5 * near * near;
  return static_cast<T>(out);
}

// dz/da of the quantile z of the gamma distribution of shape a; see gpugrad/special_twins.py
template <class T> __device__ T gamma_slope(T a_, T z_) {
  const double a = widen(a_), z = widen(z_);
  if (!(a > 0 && z >= 0)) return static_cast<T>(nan(""));
  if (z == 0) return static_cast<T>(0.0);
  const double log_ratio = log(z) - digamma_of(a);
  if (z < 4) {
    double term = 1 / a, falling = term, total = term, slope = -term * term;
    for (int k = 1; k < 50; ++k) {
      term *= z / (a + k);
      falling += 1 / (a + k);
      total += term;
      slope -= term * falling;
    }
    return static_cast<T>(-z * (total * log_ratio + slope));
  }
  const double scale = (z < a ? -1 : 1) / (fabs(a - z) + sqrt(z)), step = 7.3 / 63;
  double area = 0;
  for (int i = 0; i < 64; ++i) {
    const double u = -3.8 + step * i, e = exp(-u), y = exp(u - e), v = scale * y;
    area += exp(a * v - z * expm1(v)) * (log_ratio + v) * (y * (1 + e));
  }
  return static_cast<T>(z * scale * area * step);
}

}  // namespace gpugrad

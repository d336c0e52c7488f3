// Sums into, and writes of, elements that may be named more than once: in a fixed order, without
// atomic operations on floating-point numbers.
//
// Arrays are seen as (before, n, after), values as (before, m, after); index, of length m, says
// into which of the n places the values go. Thread i stands for one value.
namespace gpugrad {

// Adds the values of one place to its element, in the order in which a stable sort of index,
// `order`, puts them. They are cut into chunks of a fixed length, so that no thread adds up more:
// what of a chunk continues the sum of the one before goes into `heads`, (before, chunks, after),
// with its place in `head_index`, -1 where there is none. They are values to be added in turn.
template <class T, class S, class V, class I, class O, class A, class H, class J>
__device__ void add_in_order(long long i, const V &values, const I &index, const O &order,
                             long long m, long long n, long long after, long long chunk, A &array,
                             H &heads, J &head_index) {
  const long long column = i % after, row = i / after, p = row % m, block = row / m;
  const long long place = index[order[p]], number = p / chunk;
  const bool starts = p == 0 || index[order[p - 1]] != place, heading = p % chunk == 0;
  if (heading && block == 0 && column == 0) head_index[number] = starts ? -1 : place;
  if (place < 0 || !(starts || heading)) return;
  const long long end = (number + 1) * chunk < m ? (number + 1) * chunk : m;
  const long long element = (block * n + place) * after + column;
  S total(0);
  if (starts) total = static_cast<S>(array[element]);
  for (long long q = p; q < end && index[order[q]] == place; ++q)
    total += static_cast<S>(values[(block * m + order[q]) * after + column]);
  if (starts)
    array[element] = static_cast<T>(total);
  else
    heads[(block * ((m + chunk - 1) / chunk) + number) * after + column] = total;
}

// Writes value i if it is the last of its place; `last` has the number of the last one.
template <class V, class I, class L, class A>
__device__ void write_last(long long i, const V &values, const I &index, const L &last,
                           long long m, long long n, long long after, A &array) {
  const long long column = i % after, row = i / after, p = row % m, block = row / m;
  const long long place = index[p];
  if (last[place] == p) array[(block * n + place) * after + column] = values[i];
}

}  // namespace gpugrad

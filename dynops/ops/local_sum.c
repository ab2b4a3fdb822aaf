/* The three sums of a local operator on a grid of rows and columns, none of which ever holds all windows.

       y[b,g,o,s,p]    = sum over i, k             of K[b,g,o,i,k,p] V[b,g,i,s,at(p,k)]
       dV[b,g,i,s,q]   = sum over o, p, k: at = q  of K[b,g,o,i,k,p] dy[b,g,o,s,p]
       dK[b,g,o,i,k,p] = sum over s                of dy[b,g,o,s,p] V[b,g,i,s,at(p,k)]

   at(p,k) = p stride + k dilation - before on each axis; outside the grid stands zero.

   A vector is LANES pixels of a row. BLOCK channels are summed side by side, so that a weight is loaded once for all of
   them, and two rows that see the same row through different taps, so that a pixel is loaded once for both. A task is a
   band of rows of one image and group; what it reads of the features is first copied, with zeros around, to a scratch
   that fits the cache. There the columns of a row lie by their remainder modulo the stride, so that the lanes of a
   vector are neighbours at every stride. The source is compiled for one type of features. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t i64;
#if defined(FLOAT64)
typedef double stored, summed;
typedef i64 lane;
#elif defined(BFLOAT16)
typedef uint16_t stored;
typedef float summed;
typedef int32_t lane;
#else
typedef float stored, summed;
typedef int32_t lane;
#endif

#define LANES ((i64)(64 / sizeof(summed)))
#define BLOCK 8
/* How far ahead memory is fetched, as no processor foresees as many planes as there are taps: of weights, of what is
   written, and of features, which are copied line after line. */
#define AHEAD (6 * LANES)
#define BEYOND (4 * LANES)
#define FAR 1024
#define SCRATCH (384 << 10) /* bytes of features that a task copies, about half of a core's cache */
/* For each j below n, which is known when the source is compiled: so what is held for each j stays in registers. */
#define EACH(j, n) _Pragma("GCC unroll 8") for (int j = 0; j < (n); j++)
#define INLINE static inline __attribute__((always_inline))

typedef summed vec __attribute__((vector_size(64)));
typedef lane mask __attribute__((vector_size(64)));
typedef stored pack __attribute__((vector_size(64 / sizeof(summed) * sizeof(stored))));

/* Every number is an i64, in the order in which Python writes them. */
typedef struct {
    i64 b, g, o, i, s;                       /* images, groups, fan-out, summed and sharing channels */
    i64 h, w, rows, columns;                 /* the grids of V and of y */
    i64 kh, kw, stride_h, stride_w, dilation_h, dilation_w, before_h, before_w;
    i64 threads;
} Sizes;
typedef struct { i64 b, g, c, s, h, w; } Steps;    /* of features; c is o or i */
typedef struct { i64 b, g, o, i, k, end; } Strides; /* of weights, whose rows lie one behind the other; end: elements */

INLINE i64 least(i64 a, i64 b) { return a < b ? a : b; }
INLINE i64 most(i64 a, i64 b) { return a > b ? a : b; }
INLINE i64 whole(i64 n, i64 step) { return (n + step - 1) / step * step; }
INLINE i64 below(i64 n, i64 step) { return n >= 0 ? n / step : -((-n + step - 1) / step); }
INLINE i64 above(i64 n, i64 step) { return -below(-n, step); }

#if defined(BFLOAT16)
typedef uint32_t bits __attribute__((vector_size(64)));
INLINE vec widen(pack p) { return (vec)(__builtin_convertvector(p, bits) << 16); }
INLINE pack narrow(vec v) {
    bits b = (bits)v, rounded = b + 0x7fff + ((b >> 16) & 1), nan = (bits)(v != v);
    return __builtin_convertvector(((rounded & ~nan) | ((b | 0x400000) & nan)) >> 16, pack);
}
INLINE summed widen1(stored x) { uint32_t b = (uint32_t)x << 16; summed y; memcpy(&y, &b, 4); return y; }
#else
INLINE vec widen(pack p) { return p; }
INLINE pack narrow(vec v) { return v; }
INLINE summed widen1(stored x) { return x; }
#endif

INLINE vec load(const summed *at) {
    vec v;
    memcpy(&v, at, sizeof v);
#if defined(__AVX512F__)
    __asm__("" : "+v"(v)); /* in a register, once for all that is done with it */
#endif
    return v;
}

/* LANES weights from element `at`; with `edge` those beyond the tensor are zero. */
INLINE vec weigh(const stored *k, i64 at, i64 end, const int edge) {
    pack p;
    if (!edge) {
        memcpy(&p, k + at, sizeof p);
        __builtin_prefetch(k + at + AHEAD);
    } else {
        stored few[LANES] = {0};
        for (i64 n = most(0, -at); n < least(LANES, end - at); n++) few[n] = k[at + n];
        memcpy(&p, few, sizeof p);
    }
    return widen(p);
}

/* Copy fewer bytes than a vector has: two parts that overlap. */
INLINE void copy_few(void *to, const void *from, i64 bytes) {
#define PART(N)                                                                   \
    if (bytes >= N) {                                                             \
        memcpy(to, from, N);                                                      \
        memcpy((char *)to + bytes - N, (const char *)from + bytes - N, N);        \
        return;                                                                   \
    }
    PART(32) PART(16) PART(8) PART(4) PART(2)
#undef PART
}

static __attribute__((noinline)) void store_some(stored *at, i64 step, pack p, i64 count) {
    if (step != 1)
        for (i64 l = 0; l < least(count, LANES); l++) at[l * step] = p[l];
    else copy_few(at, &p, count * sizeof *at);
}

/* Say that a vector of each of n channels is about to be written, some vectors before it is. */
INLINE void announce(stored *at, i64 step, const int n) {
    if (at) EACH(j, n) __builtin_prefetch(at + j * step + BEYOND, 1);
}

INLINE void store(stored *at, i64 step, vec v, i64 count) {
    pack p = narrow(v);
    if (step == 1 && count >= LANES) memcpy(at, &p, sizeof p);
    else store_some(at, step, p, count);
}

/* Copy `count` numbers of a row, or zeros from NULL; the last vector overlaps the one before it. */
INLINE void copy_row(summed *to, const stored *from, i64 step, i64 count) {
    if (count >= LANES && (step == 1 || !from))
        for (i64 n = 0; n < count; n += LANES) {
            i64 at = least(n, count - LANES);
            pack p = {0};
            if (from) memcpy(&p, from + at, sizeof p), __builtin_prefetch(from + at + FAR);
            vec v = widen(p);
            memcpy(to + at, &v, sizeof v);
        }
    else if (from && step == 1 && sizeof(stored) == sizeof(summed)) {
        copy_few(to, from, count * sizeof *to);
        __builtin_prefetch(from + FAR);
    } else for (i64 n = 0; n < count; n++) to[n] = from ? widen1(from[n * step]) : 0;
}

/* A band of rows: at [row][phase][place] the pixel of row `first + row`, column `phase + place * phases - before`.
   Places beyond the columns are the same in all bands, and zero since the scratch was made. */
typedef struct { i64 first, rows, before, phases, pitch; } Band;

static void copy(summed *to, const stored *from, i64 step_h, i64 step_w, i64 h, i64 w, Band band) {
    for (i64 phase = 0; phase < band.phases; phase++, to += band.pitch) {
        i64 offset = phase - band.before, place = most(0, above(-offset, band.phases));
        i64 last = most(place, least(band.pitch, below(w - 1 - offset, band.phases) + 1));
        const stored *source = from + (offset + place * band.phases) * step_w;
        for (i64 row = 0; row < band.rows; row++) {
            i64 y = band.first + row, outside = y < 0 || y >= h;
            copy_row(to + row * band.phases * band.pitch + place, outside ? NULL : source + y * step_h,
                     band.phases * step_w, last - place);
        }
    }
}

/* Rows of a band: as many as let the scratch hold `planes` planes of such rows. */
static i64 band_rows(i64 planes, i64 row, i64 halo, i64 step, i64 rows, i64 tasks, i64 threads) {
    i64 fit = (SCRATCH / (i64)sizeof(summed) / most(1, planes * row) - halo) / step;
    i64 spread = (rows * tasks + 4 * threads - 1) / (4 * threads); /* enough tasks for all threads */
    return most(1, least(rows, least(most(fit, 4), most(spread, 4))));
}

static void *scratch(i64 elements) {
    void *at = NULL;
    i64 bytes = (elements + 2 * LANES) * sizeof(summed);
    return posix_memalign(&at, 64, bytes) ? NULL : memset(at, 0, bytes);
}

/* Rows r and r + apart see a row of features through the taps of rows ky and ky - later. */
typedef struct { i64 apart, later; } Pair;

static Pair pair_rows(const Sizes *z) {
    i64 apart = 1;
    while (apart * z->stride_h % z->dilation_h) apart++;
    return (Pair){apart, apart * z->stride_h / z->dilation_h};
}

/* Where taps lie in a band, from the place of their output; those of a second row as well. */
static i64 *tap_places(const Sizes *z, i64 pitch) {
    i64 taps = (z->kh + pair_rows(z).later) * z->kw, *places = malloc((taps + 1) * sizeof *places);
    for (i64 tap = 0; places && tap < taps; tap++) {
        i64 down = tap / z->kw * z->dilation_h, across = tap % z->kw * z->dilation_w;
        places[tap] = (down * z->stride_w + across % z->stride_w) * pitch + across / z->stride_w;
    }
    return places;
}

/* Run CALL(N) for blocks of N channels, taps, or what else there is `many` of, from n on. */
#define IN_BLOCKS(n, many, CALL)                     \
    {                                                \
        for (; n + 8 <= (many); n += 8) CALL(8);     \
        switch ((many) - n) {                        \
            case 7: CALL(7); break;                  \
            case 6: CALL(6); break;                  \
            case 5: CALL(5); break;                  \
            case 4: CALL(4); break;                  \
            case 3: CALL(3); break;                  \
            case 2: CALL(2); break;                  \
            case 1: CALL(1); break;                  \
        }                                            \
    }

/* A function for each number of a block, each with registers of its own. */
#define FOR_EACH_NUMBER(MAKE) MAKE(1) MAKE(2) MAKE(3) MAKE(4) MAKE(5) MAKE(6) MAKE(7) MAKE(8)

/* The first column of the vector that holds `column`: the last one of a row overlaps the one before it. */
INLINE i64 vector_of(i64 column, i64 columns) { return most(0, least(column, columns - LANES)); }

/* How many numbers of a vector to store: what lies behind a short row belongs to rows that are stored later, if those
   of a band lie one behind the other. */
INLINE i64 to_store(int dense, i64 row, i64 rows, i64 columns) {
    return columns >= LANES || (dense && (rows - row) * columns >= LANES) ? LANES : columns;
}

/* ---- y ---- */

/* What the sums of a row, or of two, need. */
typedef struct {
    const stored *k;
    i64 at[2], step_i, step_k, end;      /* elements of the first weights of each row */
    const summed *x;
    const i64 *places;
    i64 summands, taps, later, plane, channel;
    stored *y[2];
    i64 step_s, step_w, count[2];
} Sum;

INLINE void sum_taps(const Sum *u, const summed *x, i64 k0, i64 k1, i64 from, i64 to, vec *first, vec *second,
                     const int n, const int in_first, const int in_second, const int edge) {
    for (i64 tap = from; tap < to; tap++) {
        const summed *seen = x + u->places[tap];
        vec a = {0}, b = {0};
        if (in_first) a = weigh(u->k, k0 + tap * u->step_k, u->end, edge);
        if (in_second) b = weigh(u->k, k1 + (tap - u->later) * u->step_k, u->end, edge);
        EACH(j, n) {
            vec pixels = load(seen + j * u->plane);
            if (in_first) first[j] += a * pixels;
            if (in_second) second[j] += b * pixels;
        }
    }
}

INLINE void sum_rows(const Sum *u, i64 s, const int n, const int edge) {
    vec first[BLOCK], second[BLOCK];
    EACH(j, n) first[j] = second[j] = (vec){0};
    for (int row = 0; row < 2; row++) announce(u->y[row] ? u->y[row] + s * u->step_s : NULL, u->step_s, n);
    for (i64 i = 0; i < u->summands; i++) {
        const summed *x = u->x + s * u->plane + i * u->channel;
        i64 k0 = u->at[0] + i * u->step_i, k1 = u->at[1] + i * u->step_i, shared = least(u->later, u->taps);
        if (!u->y[1]) {
            sum_taps(u, x, k0, k1, 0, u->taps, first, second, n, 1, 0, edge);
            continue;
        }
        sum_taps(u, x, k0, k1, 0, shared, first, second, n, 1, 0, edge);
        sum_taps(u, x, k0, k1, u->later, u->taps, first, second, n, 1, 1, edge);
        sum_taps(u, x, k0, k1, most(u->later, u->taps), u->taps + u->later, first, second, n, 0, 1, edge);
    }
    EACH(j, n) store(u->y[0] + (s + j) * u->step_s, u->step_w, first[j], u->count[0]);
    if (u->y[1])
        EACH(j, n) store(u->y[1] + (s + j) * u->step_s, u->step_w, second[j], u->count[1]);
}

#define MAKE(N) static __attribute__((noinline)) void sum_rows_##N(const Sum *u, i64 s) { sum_rows(u, s, N, 0); }
FOR_EACH_NUMBER(MAKE)
#undef MAKE
static __attribute__((noinline)) void sum_rows_at_edge(const Sum *u, i64 s) { sum_rows(u, s, 1, 1); }

int local_sum(const stored *k, const stored *v, stored *y, const Sizes *z, const Strides *t, const Steps *from,
              const Steps *to) {
    i64 wide = whole(z->columns, LANES), reach = (z->kw - 1) * z->dilation_w / z->stride_w + 1;
    i64 pitch = whole(wide + reach, LANES), halo = (z->kh - 1) * z->dilation_h + 1;
    i64 channels = least(z->s, 2 * BLOCK);
    i64 band = band_rows(channels * z->i, pitch * z->stride_w, halo, z->stride_h, z->rows, z->b * z->g, z->threads);
    i64 bands = (z->rows + band - 1) / band, deep = (band - 1) * z->stride_h + halo;
    i64 plane = deep * z->stride_w * pitch, failed = 0, *places = tap_places(z, pitch);
    Pair pair = pair_rows(z);
    int dense = pair.apart == 1 && to->w == 1 && to->h == z->columns;
    if (!places) return 1;
#pragma omp parallel num_threads(z->threads)
    {
        summed *x = scratch(channels * z->i * plane);
        if (!x) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (i64 task = 0; task < z->b * z->g * bands; task++) {
            if (!x) continue;
            i64 b = task / bands / z->g, g = task / bands % z->g, first = task % bands * band;
            i64 last = least(z->rows, first + band);
            Band rows = {first * z->stride_h - z->before_h, (last - first - 1) * z->stride_h + halo, z->before_w,
                         z->stride_w, pitch};
            for (i64 s0 = 0; s0 < z->s; s0 += channels) {
                i64 many = least(channels, z->s - s0);
                for (i64 i = 0; i < z->i; i++)
                    for (i64 s = 0; s < many; s++)
                        copy(x + (i * channels + s) * plane,
                             v + b * from->b + g * from->g + i * from->c + (s0 + s) * from->s, from->h, from->w, z->h,
                             z->w, rows);
                for (i64 o = 0; o < z->o; o++)
                    for (i64 r = first; r < last; r++) {
                        if ((r - first) / pair.apart % 2) continue; /* the second of a pair */
                        int two = r + pair.apart < last;
                        i64 at = b * t->b + g * t->g + o * t->o + r * z->columns;
                        stored *out = y + b * to->b + g * to->g + o * to->c + s0 * to->s + r * to->h;
                        Sum u = {.k = k, .step_i = t->i, .step_k = t->k, .end = t->end, .places = places,
                                 .summands = z->i, .taps = z->kh * z->kw, .later = pair.later * z->kw, .plane = plane,
                                 .channel = channels * plane, .step_s = to->s, .step_w = to->w};
                        for (i64 column = 0; column < z->columns; column += LANES) {
                            i64 c = vector_of(column, z->columns), s = 0;
                            for (int row = 0; row <= two; row++) {
                                u.at[row] = at + row * pair.apart * z->columns + c;
                                u.y[row] = out + row * pair.apart * to->h + c * to->w;
                                u.count[row] = to_store(dense, r + row - first, last - first, z->columns);
                            }
                            u.x = x + (r - first) * z->stride_h * z->stride_w * pitch + c;
                            i64 farthest = u.at[two] + (z->i - 1) * t->i + (u.taps - 1) * t->k;
#define CALL(N) sum_rows_##N(&u, s)
                            if (farthest + LANES <= t->end) IN_BLOCKS(s, many, CALL)
                            else for (; s < many; s++) sum_rows_at_edge(&u, s);
#undef CALL
                        }
                    }
            }
        }
        free(x);
    }
    free(places);
    return (int)failed;
}

/* ---- dV ---- */

/* A row of taps that sees a row, or two: its first weights in each, and the slopes there. */
typedef struct { i64 weights[2], slopes; } Line;
/* A tap of such a row: its weights less the first, and its column less that of the pixels. */
typedef struct { i64 weights, column; } Tap;

/* What the gradients of a row, or of two, need; lines of the first row alone, of both, of the second alone. */
typedef struct {
    const stored *k;
    i64 step_o, end, columns, number[3], many, nearest, farthest; /* weights of column 0 that are read */
    const Line *lines[3];
    const Tap *taps;
    const lane *there; /* -1 at a column that there is, else 0 */
    const summed *dy;
    i64 summands, plane, channel, c;
    stored *dv[2];
    i64 step_s, step_w, count[2];
} Slope;

/* Weights from a column on, zero where there is none. */
INLINE vec weigh_inside(const Slope *u, i64 at, i64 column, const int edge) {
    vec weight = weigh(u->k, at + u->c, u->end, edge);
    mask there;
    memcpy(&there, u->there + column, sizeof there);
    return (vec)((mask)weight & there);
}

INLINE void slope_taps(const Slope *u, const summed *dy, i64 o, const int which, vec *first, vec *second, const int n,
                       const int edge) {
    for (const Line *line = u->lines[which]; line < u->lines[which] + u->number[which]; line++)
        for (const Tap *tap = u->taps; tap < u->taps + u->many; tap++) {
            i64 column = u->c + tap->column, weights = o * u->step_o + tap->weights;
            if (column <= -LANES || column >= u->columns) continue;
            const summed *seen = dy + line->slopes + column;
            vec a = {0}, b = {0};
            if (which < 2) a = weigh_inside(u, weights + line->weights[0], column, edge);
            if (which > 0) b = weigh_inside(u, weights + line->weights[1], column, edge);
            EACH(j, n) {
                vec slopes = load(seen + j * u->plane);
                if (which < 2) first[j] += a * slopes;
                if (which > 0) second[j] += b * slopes;
            }
        }
}

INLINE void slope_rows(const Slope *u, i64 s, const int n, const int edge) {
    vec first[BLOCK], second[BLOCK];
    EACH(j, n) first[j] = second[j] = (vec){0};
    for (int row = 0; row < 2; row++) announce(u->dv[row] ? u->dv[row] + s * u->step_s : NULL, u->step_s, n);
    for (i64 o = 0; o < u->summands; o++) {
        const summed *dy = u->dy + s * u->plane + o * u->channel;
        slope_taps(u, dy, o, 0, first, second, n, edge);
        slope_taps(u, dy, o, 1, first, second, n, edge);
        slope_taps(u, dy, o, 2, first, second, n, edge);
    }
    EACH(j, n) store(u->dv[0] + (s + j) * u->step_s, u->step_w, first[j], u->count[0]);
    if (u->dv[1])
        EACH(j, n) store(u->dv[1] + (s + j) * u->step_s, u->step_w, second[j], u->count[1]);
}

#define MAKE(N) static __attribute__((noinline)) void slope_rows_##N(const Slope *u, i64 s) { slope_rows(u, s, N, 0); }
FOR_EACH_NUMBER(MAKE)
#undef MAKE
static __attribute__((noinline)) void slope_rows_at_edge(const Slope *u, i64 s) { slope_rows(u, s, 1, 1); }

/* n / step; to divide takes long. */
INLINE i64 over(i64 n, i64 step) { return step == 1 ? n : n / step; }

/* List the taps of a row that see the columns `phase + place * stride`, and say how many they are. */
static i64 list_taps(const Sizes *z, i64 step_k, i64 phase, Tap *taps) {
    i64 many = 0;
    for (i64 kx = 0; kx < z->kw; kx++) {
        i64 across = phase + z->before_w - kx * z->dilation_w, column = across / z->stride_w;
        if (column * z->stride_w == across) taps[many++] = (Tap){kx * step_k + column, column};
    }
    return many;
}

/* List the rows of taps that see a row, and with `two` the row a dilation below. */
static void list_lines(const Sizes *z, i64 step_k, i64 row, int two, i64 first, i64 front, i64 pitch, Line *lines,
                       Slope *u) {
    i64 nearest = INT64_MAX, farthest = INT64_MIN, taps_nearest = 0, taps_farthest = 0;
    for (int which = 0; which < 3; which++) {
        u->lines[which] = lines + which * z->kh;
        u->number[which] = 0;
    }
    for (i64 ky = two ? -1 : 0; ky < z->kh; ky++) {
        i64 down = row + z->before_h - ky * z->dilation_h, r = over(down, z->stride_h);
        if (down < 0 || r * z->stride_h != down || r >= z->rows) continue;
        int which = ky < 0 ? 2 : two && ky + 1 < z->kh ? 1 : 0;
        i64 weights = ky * z->kw * step_k + r * z->columns, below = weights + z->kw * step_k;
        nearest = least(nearest, which < 2 ? weights : below);
        farthest = most(farthest, which > 0 ? below : weights);
        lines[which * z->kh + u->number[which]++] = (Line){{weights, below}, (r - first) * pitch + front};
    }
    for (i64 tap = 0; tap < u->many; tap++) {
        taps_nearest = least(taps_nearest, u->taps[tap].weights);
        taps_farthest = most(taps_farthest, u->taps[tap].weights);
    }
    u->nearest = least(nearest, 0) + taps_nearest;
    u->farthest = most(farthest, 0) + taps_farthest;
}

int value_gradient(const stored *k, const stored *dy, stored *dv, const Sizes *z, const Strides *t, const Steps *from,
                   const Steps *to) {
    i64 front = LANES + (z->kw - 1) * z->dilation_w / z->stride_w + 1;
    i64 places = most(z->columns, (z->w + z->stride_w - 1) / z->stride_w);
    i64 pitch = whole(front + places + z->before_w + 3 * LANES, LANES);
    i64 halo = (z->kh - 1) * z->dilation_h / z->stride_h + 2, channels = least(z->s, 2 * BLOCK);
    i64 band = band_rows(channels * z->o, pitch, halo, 1, z->h, z->b * z->g, z->threads);
    i64 bands = (z->h + band - 1) / band, deep = band / z->stride_h + halo, plane = deep * pitch, failed = 0;
    lane *there = calloc(z->columns + 2 * LANES, sizeof *there);
    Tap *taps = malloc(z->stride_w * z->kw * sizeof *taps);
    i64 *many_taps = malloc(z->stride_w * sizeof *many_taps);
    if (!there || !taps || !many_taps) {
        free(there), free(taps), free(many_taps);
        return 1;
    }
    for (i64 phase = 0; phase < z->stride_w; phase++)
        many_taps[phase] = list_taps(z, t->k, phase, taps + phase * z->kw);
    for (i64 column = 0; column < z->columns; column++) there[LANES + column] = -1;
    int dense = z->stride_w == 1 && z->dilation_h == 1 && to->w == 1 && to->h == z->w;
#pragma omp parallel num_threads(z->threads)
    {
        summed *x = scratch(channels * z->o * plane);
        Line *lines = malloc(3 * z->kh * sizeof *lines);
        if (!x || !lines) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (i64 task = 0; task < z->b * z->g * bands; task++) {
            if (!x || !lines) continue;
            i64 b = task / bands / z->g, g = task / bands % z->g, top = task % bands * band;
            i64 bottom = least(z->h, top + band);
            /* the rows of y that see the band */
            i64 first = above(top + z->before_h - (z->kh - 1) * z->dilation_h, z->stride_h);
            i64 last = below(bottom - 1 + z->before_h, z->stride_h);
            Band rows = {first, last - first + 1, front, 1, pitch};
            for (i64 s0 = 0; s0 < z->s; s0 += channels) {
                i64 many = least(channels, z->s - s0);
                for (i64 o = 0; o < z->o; o++)
                    for (i64 s = 0; s < many; s++)
                        copy(x + (o * channels + s) * plane,
                             dy + b * from->b + g * from->g + o * from->c + (s0 + s) * from->s, from->h, from->w,
                             z->rows, z->columns, rows);
                for (i64 i = 0; i < z->i; i++)
                    for (i64 row = top; row < bottom; row++) {
                        if ((row - top) / z->dilation_h % 2) continue; /* the second of a pair */
                        int two = row + z->dilation_h < bottom;
                        for (i64 phase = 0; phase < z->stride_w; phase++) {
                            i64 places = (z->w - phase + z->stride_w - 1) / z->stride_w;
                            i64 at = b * t->b + g * t->g + i * t->i;
                            Slope u = {.k = k + at, .step_o = t->o, .end = t->end - at,
                                       .columns = z->columns, .many = many_taps[phase], .taps = taps + phase * z->kw,
                                       .there = there + LANES, .dy = x, .summands = z->o, .plane = plane,
                                       .channel = channels * plane, .step_s = to->s, .step_w = z->stride_w * to->w};
                            list_lines(z, t->k, row, two, first, front, pitch, lines, &u);
                            for (i64 column = 0; column < places; column += LANES) {
                                i64 c = vector_of(column, places), s = 0;
                                u.c = c;
                                for (int second = 0; second <= two; second++)
                                    u.count[second] = to_store(dense, row + second - top, bottom - top, places);
                                u.dv[0] = dv + b * to->b + g * to->g + i * to->c + s0 * to->s + row * to->h
                                          + (phase + c * z->stride_w) * to->w;
                                u.dv[1] = two ? u.dv[0] + z->dilation_h * to->h : NULL;
                                int inside = at + u.nearest + c >= 0
                                             && u.farthest + c + (z->o - 1) * t->o + LANES <= u.end;
#define CALL(N) slope_rows_##N(&u, s)
                                if (inside) IN_BLOCKS(s, many, CALL)
                                else for (; s < many; s++) slope_rows_at_edge(&u, s);
#undef CALL
                            }
                        }
                    }
            }
        }
        free(lines);
        free(x);
    }
    free(there), free(taps), free(many_taps);
    return (int)failed;
}

/* ---- dK ---- */

/* What the gradients of neighbouring taps, in a row or in two, need. */
typedef struct {
    const summed *dy[2], *x;
    i64 summands, dy_plane, plane;
    const i64 *places;
    summed *dk[2];
    i64 step_k, count[2];
    int add;
    i64 done; /* numbers of the vector that were added before */
} Share;

static __attribute__((noinline)) void keep_some(const Share *u, summed *out, vec v, i64 count) {
    if (!u->add) copy_few(out, &v, count * sizeof *out);
    else for (i64 l = u->done; l < count; l++) out[l] += v[l];
}

INLINE void keep(const Share *u, summed *out, vec v, i64 count) {
    count = least(count, LANES);
    __builtin_prefetch(out + BEYOND, 1);
    if (!u->add && count == LANES) memcpy(out, &v, sizeof v);
    else keep_some(u, out, v, count);
}

INLINE void share_taps(const Share *u, i64 kx, const int n, const int in_first, const int in_second) {
    vec first[BLOCK], second[BLOCK];
    const summed *seen[BLOCK];
    EACH(j, n) {
        first[j] = second[j] = (vec){0};
        seen[j] = u->x + u->places[kx + j];
    }
    for (i64 s = 0; s < u->summands; s++) {
        vec a = {0}, b = {0};
        if (in_first) a = load(u->dy[0] + s * u->dy_plane);
        if (in_second) b = load(u->dy[1] + s * u->dy_plane);
        EACH(j, n) {
            vec pixels = load(seen[j] + s * u->plane);
            if (in_first) first[j] += a * pixels;
            if (in_second) second[j] += b * pixels;
        }
    }
    if (in_first)
        EACH(j, n) keep(u, u->dk[0] + (kx + j) * u->step_k, first[j], u->count[0]);
    if (in_second)
        EACH(j, n) keep(u, u->dk[1] + (kx + j) * u->step_k, second[j], u->count[1]);
}

#define MAKE(N)                                                                      \
    static __attribute__((noinline)) void share_taps_##N(const Share *u, i64 kx) {   \
        if (u->dk[0] && u->dk[1]) share_taps(u, kx, N, 1, 1);                        \
        else if (u->dk[0]) share_taps(u, kx, N, 1, 0);                               \
        else share_taps(u, kx, N, 0, 1);                                             \
    }
FOR_EACH_NUMBER(MAKE)
#undef MAKE

/* The gradient of a weight that images or groups share is their sum; t has stride 0 there. */
int kernel_gradient(const stored *dy, const stored *v, summed *dk, const Sizes *z, const Strides *t,
                    const Steps *slopes, const Steps *from) {
    i64 wide = whole(z->columns, LANES), reach = (z->kw - 1) * z->dilation_w / z->stride_w + 1;
    i64 pitch = whole(wide + reach, LANES), halo = (z->kh - 1) * z->dilation_h + 1;
    i64 kb = t->b ? z->b : 1, kg = t->g ? z->g : 1;
    i64 band = band_rows(z->s * (z->i + z->o), pitch * z->stride_w, halo, z->stride_h, z->rows, kb * kg, z->threads);
    i64 bands = (z->rows + band - 1) / band, deep = (band - 1) * z->stride_h + halo;
    i64 plane = deep * z->stride_w * pitch, dy_plane = band * wide, failed = 0, *places = tap_places(z, pitch);
    Pair pair = pair_rows(z);
    if (!places) return 1;
#pragma omp parallel num_threads(z->threads)
    {
        summed *x = scratch(z->s * (z->i * plane + z->o * dy_plane)), *slope = x + z->s * z->i * plane;
        if (!x) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic)
        for (i64 task = 0; task < kb * kg * bands; task++) {
            if (!x) continue;
            i64 first = task % bands * band, last = least(z->rows, first + band);
            Band rows = {first * z->stride_h - z->before_h, (last - first - 1) * z->stride_h + halo, z->before_w,
                         z->stride_w, pitch};
            Band own = {first, last - first, 0, 1, wide};
            i64 b0 = t->b ? task / bands / kg : 0, b1 = t->b ? b0 + 1 : z->b;
            i64 g0 = t->g ? task / bands % kg : 0, g1 = t->g ? g0 + 1 : z->g;
            for (i64 b = b0; b < b1; b++)
                for (i64 g = g0; g < g1; g++) {
                    int add = b > b0 || g > g0, dense = pair.apart == 1 && !add;
                    for (i64 s = 0; s < z->s; s++) {
                        for (i64 i = 0; i < z->i; i++)
                            copy(x + (i * z->s + s) * plane, v + b * from->b + g * from->g + i * from->c + s * from->s,
                                 from->h, from->w, z->h, z->w, rows);
                        for (i64 o = 0; o < z->o; o++)
                            copy(slope + (o * z->s + s) * dy_plane,
                                 dy + b * slopes->b + g * slopes->g + o * slopes->c + s * slopes->s, slopes->h,
                                 slopes->w, z->rows, z->columns, own);
                    }
                    for (i64 r = first; r < last; r++) {
                        if ((r - first) / pair.apart % 2) continue; /* the second of a pair */
                        int two = r + pair.apart < last;
                        Share u = {.summands = z->s, .dy_plane = dy_plane, .plane = plane, .step_k = t->k, .add = add};
                        for (int row = 0; row <= two; row++)
                            u.count[row] = to_store(dense, r + row - first, last - first, z->columns);
                        for (i64 column = 0; column < z->columns; column += LANES) {
                            i64 c = vector_of(column, z->columns);
                            u.done = column - c;
                            for (i64 oi = 0; oi < z->o * z->i; oi++) {
                                i64 o = oi / z->i, i = oi % z->i;
                                summed *own = dk + b * t->b + g * t->g + o * t->o + i * t->i + r * z->columns + c;
                                u.dy[0] = slope + o * z->s * dy_plane + (r - first) * wide + c;
                                u.dy[1] = u.dy[0] + pair.apart * wide;
                                u.x = x + i * z->s * plane + (r - first) * z->stride_h * z->stride_w * pitch + c;
                                for (i64 ky = 0; ky < z->kh + (two ? pair.later : 0); ky++) {
                                    i64 before = ky - pair.later, kx = 0;
                                    u.places = places + ky * z->kw;
                                    u.dk[0] = ky < z->kh ? own + ky * z->kw * t->k : NULL;
                                    u.dk[1] = two && before >= 0
                                                  ? own + pair.apart * z->columns + before * z->kw * t->k : NULL;
                                    if (!u.dk[0] && !u.dk[1]) continue;
#define CALL(N) share_taps_##N(&u, kx)
                                    IN_BLOCKS(kx, z->kw, CALL)
#undef CALL
                                }
                            }
                        }
                    }
                }
        }
        free(x);
    }
    free(places);
    return (int)failed;
}

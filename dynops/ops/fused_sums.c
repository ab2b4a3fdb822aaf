/* Sums of windows on a grid of rows and columns whose weights are never in memory: attention's, and generated ones.

       y[b,g,o,s,p] = sum over k of W[b,g,o,k,p] V[b,g,s,at(p,k)]
       W = softmax over k of S,
           S[b,g,o,k,p] = sum over d of Q[b,g,o,d,p] N[b,g,d,at(p,k)] + sum over e of A[b,g,o,e,p] R[g,k,e]
       or, with one o, W[b,g,k,p] = B[g,k] + sum over e of A[b,e,p] R[g,k,e]

   A task is a band of rows of one image. Its weights are in a scratch that fits the cache, where the three sums of
   local_sum.c, of which this source is the rest, find them: products with keys are the gradient of a kernel. Going
   back, the band's weights are made anew; bands of which two see the same row never run at once. */

#if !defined(BFLOAT16) /* whose weights would be rounded */

/* Every number is an i64, in the order in which Python writes them. */
typedef struct {
    i64 b, g, o, d, e, s;
    i64 h, w, rows, columns;
    i64 kh, kw, stride_h, stride_w, dilation_h, dilation_w, before_h, before_w;
    i64 masked, shared, band, threads;      /* shared: all groups have one table */
} Shape;

/* A tensor of features, `b g c s h w`. */
typedef struct { stored *at; Steps steps; } Features;

/* The table R lies `g k e`, its gradient so for each image and band; the rest `b g o h w`. */
typedef struct {
    Features query, key, asked, value, y;
    const stored *table;
    summed *top, *total; /* largest score of a pixel, and the sum of the powers beside it */
} Forward;
typedef struct {
    Features query, key, asked, value, slope, to_query, to_key, to_asked, to_value;
    const stored *table;
    const summed *logarithm; /* of each pixel's sum of powers */
    summed *to_table;
} Backward;
typedef struct {
    Features hidden, value, y;
    const stored *table, *bias; /* `g k` */
} Generated;
typedef struct {
    Features hidden, value, slope, to_hidden, to_value;
    const stored *table, *bias;
    summed *to_table, *to_bias; /* for each image and band */
} Generating;

/* ---- powers of e ---- */

#if defined(FLOAT64)
#define DEGREE 13
#define ROUNDER 0x1.8p52
#define LN2_HIGH 0x1.62e42feep-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#define EXPONENT 52
#define LOWEST -708.0
#else
#define DEGREE 7
#define ROUNDER 0x1.8p23f
#define LN2_HIGH 0x1.62e4p-1f
#define LN2_LOW 0x1.7f7d1cp-20f
#define EXPONENT 23
#define LOWEST -87.0f
#endif
#define BIAS (((lane)1 << (8 * sizeof(lane) - 2 - EXPONENT)) - 1)

static const summed FACTORS[] = {
    1, 1, 1 / 2., 1 / 6., 1 / 24., 1 / 120., 1 / 720., 1 / 5040., 1 / 40320., 1 / 362880., 1 / 3628800.,
    1 / 39916800., 1 / 479001600., 1 / 6227020800.,
};

/* e^x up to some units in the last place, x not far above 0; below LOWEST it is 0.

   x = n ln 2 + r with n whole and |r| at most half of ln 2, so e^x = 2^n e^r, and e^r is its Taylor polynomial. */
INLINE vec power(vec x) {
    vec rounder = (vec){0} + ROUNDER, moved = x * (summed)1.4426950408889634 + rounder, n = moved - rounder;
    vec r = x - n * LN2_HIGH - n * LN2_LOW, y = (vec){0} + FACTORS[DEGREE];
    _Pragma("GCC unroll 13") for (int j = DEGREE - 1; j >= 0; j--) y = y * r + FACTORS[j];
    mask two = ((mask)moved - (mask)rounder + BIAS) << EXPONENT;
    return (vec)((mask)(y * (vec)two) & ~(mask)(x < LOWEST));
}

INLINE vec higher(vec a, vec b) {
    mask more = (mask)(a > b);
    return (vec)(((mask)a & more) | ((mask)b & ~more));
}

/* Add up the lanes, half to half. */
INLINE summed total_of(vec v) {
    summed lanes[LANES];
    typedef summed half __attribute__((vector_size(32)));
    typedef summed quarter __attribute__((vector_size(16)));
    half low, high;
    memcpy(&low, &v, 32), memcpy(&high, (const char *)&v + 32, 32);
    low += high;
    quarter few, more;
    memcpy(&few, &low, 16), memcpy(&more, (const char *)&low + 16, 16);
    few += more;
    memcpy(lanes, &few, 16);
    return LANES == 16 ? lanes[0] + lanes[1] + (lanes[2] + lanes[3]) : lanes[0] + lanes[1];
}

INLINE void save(summed *at, vec v) { memcpy(at, &v, sizeof v); }

/* ---- bands ---- */

/* A band of rows, whose scratch holds planes `o c` of pixels, each filled up with zeros to whole vectors. */
typedef struct {
    i64 b, g, first, rows, pixels, plane, taps;
    Sizes sizes; /* of a sum over all rows of the input; s is for the call to set */
    Strides weights;
} Part;

/* Planes a multiple of 1 KiB apart would compete for the same places of a cache. */
static i64 plane_of(i64 pixels) {
    i64 plane = whole(pixels, LANES);
    return plane % (16 * LANES) ? plane : plane + LANES;
}

static Part part_of(const Shape *z, i64 task, i64 bands) {
    i64 first = task % bands * z->band, rows = least(z->band, z->rows - first), pixels = rows * z->columns;
    i64 plane = plane_of(pixels), taps = z->kh * z->kw;
    return (Part){
        .b = task / bands / z->g, .g = task / bands % z->g, .first = first, .rows = rows, .pixels = pixels,
        .plane = plane, .taps = taps,
        .sizes = {1, 1, z->o, 1, 0, z->h, z->w, rows, z->columns, z->kh, z->kw, z->stride_h, z->stride_w,
                  z->dilation_h, z->dilation_w, z->before_h - first * z->stride_h, z->before_w, 1},
        .weights = {0, 0, taps * plane, 0, plane, z->o * taps * plane},
    };
}

/* Features of an image and group from a row on. */
INLINE stored *from_row(Features x, const Part *u, i64 row) {
    return x.at + u->b * x.steps.b + u->g * x.steps.g + row * x.steps.h;
}
INLINE stored *whole_grid(Features x, const Part *u) { return from_row(x, u, 0); }
INLINE stored *of_band(Features x, const Part *u) { return from_row(x, u, u->first); }

/* Fill the planes up with zeros. */
static void fill(const Part *u, summed *planes, i64 many) {
    for (i64 n = 0; n < many; n++)
        memset(planes + n * u->plane + u->pixels, 0, (u->plane - u->pixels) * sizeof *planes);
}

/* Copy a band of features to planes `c s`. */
static void take(const Part *u, summed *planes, Features x, i64 c, i64 s) {
    Band rows = {0, u->rows, 0, 1, u->sizes.columns};
    for (i64 n = 0; n < c * s; n++)
        copy(planes + n * u->plane, of_band(x, u) + n / s * x.steps.c + n % s * x.steps.s, x.steps.h, x.steps.w,
             u->rows, u->sizes.columns, rows);
    fill(u, planes, c * s);
}

/* Write planes, or add them, to features from `to` on. */
static void put(stored *to, Steps steps, const summed *planes, i64 plane, i64 c, i64 s, i64 rows, i64 columns,
                const int add) {
    for (i64 n = 0; n < c * s; n++)
        for (i64 row = 0; row < rows; row++) {
            stored *line = to + n / s * steps.c + n % s * steps.s + row * steps.h;
            const summed *own = planes + n * plane + row * columns;
            if (steps.w == 1)
                for (i64 column = 0; column < columns; column++) line[column] = own[column] + (add ? line[column] : 0);
            else
                for (i64 column = 0; column < columns; column++)
                    line[column * steps.w] = own[column] + (add ? line[column * steps.w] : 0);
        }
}

/* ---- products with the table ---- */

/* Taps whose sums stay in registers side by side. */
#if defined(__AVX512F__)
#define SIDE 3
#else
#define SIDE 1
#endif

/* made[k] += sum over n of given[n] R[k][n] */
INLINE void add_products(const Part *u, summed *made, const summed *given, const stored *table, i64 e, const int n) {
    for (i64 p = 0; p < u->plane; p += LANES) {
        vec own[BLOCK];
        EACH(j, n) own[j] = load(given + j * u->plane + p);
        for (i64 k = 0; k < u->taps; k++) {
            vec sum = load(made + k * u->plane + p);
            EACH(j, n) sum += own[j] * table[k * e + j];
            save(made + k * u->plane + p, sum);
        }
    }
}

/* given[n] += sum over k of change[k] R[k][n] */
INLINE void to_given(const Part *u, const summed *change, summed *given, const stored *table, i64 e, const int n) {
    for (i64 p = 0; p < u->plane; p += LANES) {
        vec own[BLOCK];
        EACH(j, n) own[j] = load(given + j * u->plane + p);
        for (i64 k = 0; k < u->taps; k++) {
            vec changed = load(change + k * u->plane + p);
            EACH(j, n) own[j] += changed * table[k * e + j];
        }
        EACH(j, n) save(given + j * u->plane + p, own[j]);
    }
}

/* R[k][n] += sum over p of change[k] given[n], for taps side by side, so that what is given is loaded once for them. */
INLINE void to_rows(const Part *u, const summed *change, const summed *given, summed *table, i64 e, const int n,
                    const int taps) {
    vec own[SIDE][BLOCK];
    EACH(t, taps) EACH(j, n) own[t][j] = (vec){0};
    for (i64 p = 0; p < u->plane; p += LANES) {
        vec changed[SIDE];
        EACH(t, taps) changed[t] = load(change + t * u->plane + p);
        EACH(j, n) {
            vec seen = load(given + j * u->plane + p);
            EACH(t, taps) own[t][j] += changed[t] * seen;
        }
    }
    EACH(t, taps) EACH(j, n) table[t * e + j] += total_of(own[t][j]);
}

INLINE void to_table(const Part *u, const summed *change, const summed *given, summed *table, i64 e, const int n) {
    i64 k = 0;
    for (; k + SIDE <= u->taps; k += SIDE) to_rows(u, change + k * u->plane, given, table + k * e, e, n, SIDE);
    for (; k < u->taps; k++) to_rows(u, change + k * u->plane, given, table + k * e, e, n, 1);
}

#define MAKE(N)                                                                                                   \
    static __attribute__((noinline)) void add_products_##N(const Part *u, summed *x, const summed *a,             \
                                                           const stored *r, i64 e) {                              \
        add_products(u, x, a, r, e, N);                                                                           \
    }                                                                                                             \
    static __attribute__((noinline)) void to_given_##N(const Part *u, const summed *x, summed *a, const stored *r, \
                                                       i64 e) {                                                   \
        to_given(u, x, a, r, e, N);                                                                               \
    }                                                                                                             \
    static __attribute__((noinline)) void to_table_##N(const Part *u, const summed *x, const summed *a, summed *r, \
                                                       i64 e) {                                                   \
        to_table(u, x, a, r, e, N);                                                                               \
    }
FOR_EACH_NUMBER(MAKE)
#undef MAKE

/* Add to planes what e given ones make of them. */
static void products(const Part *u, summed *made, const summed *given, const stored *table, i64 e) {
    i64 n = 0;
#define CALL(N) add_products_##N(u, made, given + n * u->plane, table + n, e)
    IN_BLOCKS(n, e, CALL)
#undef CALL
}

/* Add the gradients of e given planes and of their table, from those of what they made. */
static void products_gradient(const Part *u, const summed *change, const summed *given, summed *from_given,
                              const stored *table, summed *from_table, i64 e) {
    i64 n = 0;
#define CALL(N) to_given_##N(u, change, from_given + n * u->plane, table + n, e), \
                to_table_##N(u, change, given + n * u->plane, from_table + n, e)
    IN_BLOCKS(n, e, CALL)
#undef CALL
}

/* ---- scores ---- */

/* Give taps that see no pixel the score -inf. */
static void hide(const Shape *z, const Part *u, summed *scores) {
    const summed never = -__builtin_inf();
    for (i64 tap = 0; tap < u->taps; tap++) {
        i64 down = tap / z->kw * z->dilation_h - z->before_h, across = tap % z->kw * z->dilation_w - z->before_w;
        i64 left = most(0, least(z->columns, above(-across, z->stride_w)));
        i64 right = most(left, least(z->columns, below(z->w - 1 - across, z->stride_w) + 1));
        for (i64 row = 0; row < u->rows; row++) {
            i64 y = (u->first + row) * z->stride_h + down, from = left, to = right;
            if (y < 0 || y >= z->h) from = to = z->columns;
            for (i64 o = 0; o < z->o; o++) {
                summed *line = scores + (o * u->taps + tap) * u->plane + row * z->columns;
                for (i64 c = 0; c < from; c++) line[c] = never;
                for (i64 c = to; c < z->columns; c++) line[c] = never;
            }
        }
    }
}

/* Make the scores of a band; `asked` is in planes. */
static int score(const Shape *z, const Part *u, Features query, Features key, const summed *asked,
                 const stored *table, summed *scores) {
    Sizes sizes = u->sizes;
    sizes.s = z->d;
    if (!z->d) memset(scores, 0, z->o * u->taps * u->plane * sizeof *scores);
    else if (kernel_gradient(of_band(query, u), whole_grid(key, u), scores, &sizes, &u->weights, &query.steps,
                             &key.steps))
        return 1;
    fill(u, scores, z->o * u->taps);
    for (i64 o = 0; o < z->o; o++)
        products(u, scores + o * u->taps * u->plane, asked + o * z->e * u->plane, table, z->e);
    if (z->masked) hide(z, u, scores);
    return 0;
}

/* Turn the scores of one o into weights. */
static void soften(const Part *u, summed *scores, summed *top, summed *total) {
    for (i64 p = 0; p < u->plane; p += LANES) {
        summed *own = scores + p;
        vec most = load(own), sum = {0};
        for (i64 k = 1; k < u->taps; k++) most = higher(load(own + k * u->plane), most);
        most = (vec)((mask)most & (mask)(most > (summed)-__builtin_inf()));
        for (i64 k = 0; k < u->taps; k++) {
            vec weight = power(load(own + k * u->plane) - most);
            save(own + k * u->plane, weight);
            sum += weight;
        }
        vec part = (vec)((mask)(1 / sum) & ~(mask)(sum == 0));
        for (i64 k = 0; k < u->taps; k++) save(own + k * u->plane, load(own + k * u->plane) * part);
        save(top + p, most);
        save(total + p, sum);
    }
}

/* Turn the scores of one o into weights and the gradient of the weights into that of the scores. */
static void harden(const Part *u, summed *scores, summed *change, const summed *logarithm) {
    for (i64 p = 0; p < u->plane; p += LANES) {
        vec sum = {0}, log = load(logarithm + p);
        log = (vec)((mask)log & (mask)~(log == (summed)-__builtin_inf()));
        for (i64 k = 0; k < u->taps; k++) {
            vec weight = power(load(scores + k * u->plane + p) - log);
            save(scores + k * u->plane + p, weight);
            sum += weight * load(change + k * u->plane + p);
        }
        for (i64 k = 0; k < u->taps; k++) {
            summed *own = change + k * u->plane + p;
            save(own, load(scores + k * u->plane + p) * (load(own) - sum));
        }
    }
}

/* ---- y ---- */

/* Pixels of a band, from a row on, of a tensor `b g o h w`. */
INLINE i64 plain(const Shape *z, const Part *u, i64 o) {
    return (((u->b * z->g + u->g) * z->o + o) * z->rows + u->first) * z->columns;
}

int attended_sum(const Forward *x, const Shape *z) {
    i64 bands = (z->rows + z->band - 1) / z->band, plane = plane_of(z->band * z->columns), taps = z->kh * z->kw;
    i64 failed = 0;
#pragma omp parallel num_threads(z->threads)
    {
        summed *scores = scratch((z->o * (taps + z->e) + 2) * plane), *asked = scores + z->o * taps * plane;
        summed *top = asked + z->o * z->e * plane, *total = top + plane;
#pragma omp for schedule(dynamic)
        for (i64 task = 0; task < z->b * z->g * bands; task++) {
            Part part = part_of(z, task, bands), *u = &part;
            if (scores) take(u, asked, x->asked, z->o, z->e);
            const stored *table = x->table + (z->shared ? 0 : u->g * taps * z->e);
            int bad = !scores || score(z, u, x->query, x->key, asked, table, scores);
            for (i64 o = 0; !bad && o < z->o; o++) {
                soften(u, scores + o * taps * u->plane, top, total);
                memcpy(x->top + plain(z, u, o), top, u->pixels * sizeof *top);
                memcpy(x->total + plain(z, u, o), total, u->pixels * sizeof *total);
            }
            part.sizes.s = z->s;
            if (bad || local_sum(scores, whole_grid(x->value, u), of_band(x->y, u), &u->sizes, &u->weights,
                                 &x->value.steps, &x->y.steps)) {
#pragma omp atomic write
                failed = 1;
            }
        }
        free(scores);
    }
    return (int)failed;
}

/* ---- gradients ---- */

/* Add the gradient of what a band's windows see, from the weights and from what the band has in `from`. */
static int scatter(const Shape *z, const Part *u, const summed *weights, Features from, Features to, i64 channels,
                   summed *planes) {
    i64 top = u->first * z->stride_h - z->before_h, first = most(0, top);
    i64 last = least(z->h, top + (u->rows - 1) * z->stride_h + (z->kh - 1) * z->dilation_h + 1);
    if (last <= first) return 0;
    Sizes sizes = u->sizes;
    sizes.s = channels, sizes.h = last - first, sizes.before_h = first - top;
    i64 plane = sizes.h * z->w;
    Steps steps = {0, 0, 0, plane, z->w, 1};
    if (value_gradient(weights, of_band(from, u), planes, &sizes, &u->weights, &from.steps, &steps)) return 1;
    put(from_row(to, u, first), to.steps, planes, plane, 1, channels, sizes.h, z->w, 1);
    return 0;
}

int attended_gradients(const Backward *x, const Shape *z) {
    i64 bands = (z->rows + z->band - 1) / z->band, plane = plane_of(z->band * z->columns), taps = z->kh * z->kw;
    i64 deep = least(z->h, (z->band - 1) * z->stride_h + (z->kh - 1) * z->dilation_h + 1), failed = 0;
    i64 seen = most(z->d, z->s) * deep * z->w;
#pragma omp parallel num_threads(z->threads)
    {
        summed *scores = scratch((2 * z->o * (taps + z->e) + 1) * plane + seen), *change = scores + z->o * taps * plane;
        summed *asked = change + z->o * taps * plane, *to_asked = asked + z->o * z->e * plane;
        summed *logarithm = to_asked + z->o * z->e * plane, *planes = logarithm + plane;
        for (i64 odd = 0; odd < 2; odd++) {
            i64 many = (bands + 1 - odd) / 2;
#pragma omp for schedule(dynamic)
            for (i64 task = 0; task < z->b * z->g * many; task++) {
                i64 band = task % many * 2 + odd;
                Part part = part_of(z, task / many * bands + band, bands), *u = &part;
                if (scores) {
                    take(u, asked, x->asked, z->o, z->e);
                    memset(to_asked, 0, z->o * z->e * u->plane * sizeof *to_asked);
                }
                const stored *table = x->table + (z->shared ? 0 : u->g * taps * z->e);
                summed *own = x->to_table + ((u->b * bands + band) * z->g + u->g) * taps * z->e;
                int bad = !scores || score(z, u, x->query, x->key, asked, table, scores);
                part.sizes.s = z->s;
                bad = bad || kernel_gradient(of_band(x->slope, u), whole_grid(x->value, u), change, &u->sizes,
                                             &u->weights, &x->slope.steps, &x->value.steps);
                if (!bad) fill(u, change, z->o * taps);
                for (i64 o = 0; !bad && o < z->o; o++) {
                    memset(logarithm, 0, u->plane * sizeof *logarithm);
                    memcpy(logarithm, x->logarithm + plain(z, u, o), u->pixels * sizeof *logarithm);
                    summed *changed = change + o * taps * u->plane;
                    harden(u, scores + o * taps * u->plane, changed, logarithm);
                    i64 at = o * z->e * u->plane;
                    products_gradient(u, changed, asked + at, to_asked + at, table, own, z->e);
                }
                bad = bad || scatter(z, u, scores, x->slope, x->to_value, z->s, planes);
                if (!bad)
                    put(of_band(x->to_asked, u), x->to_asked.steps, to_asked, u->plane, z->o, z->e, u->rows, z->columns,
                        0);
                if (!bad && z->d) {
                    part.sizes.s = z->d;
                    bad = local_sum(change, whole_grid(x->key, u), of_band(x->to_query, u), &u->sizes, &u->weights,
                                    &x->key.steps, &x->to_query.steps)
                          || scatter(z, u, change, x->query, x->to_key, z->d, planes);
                }
                if (bad) {
#pragma omp atomic write
                    failed = 1;
                }
            }
        }
        free(scores);
    }
    return (int)failed;
}

/* ---- generated weights ---- */

/* Make the weights of a band. */
static void generate(const Shape *z, const Part *u, const summed *hidden, const stored *table, const stored *bias,
                     summed *weights) {
    for (i64 k = 0; k < u->taps; k++)
        for (i64 p = 0; p < u->plane; p += LANES) save(weights + k * u->plane + p, (vec){0} + bias[u->g * u->taps + k]);
    products(u, weights, hidden, table + u->g * u->taps * z->e, z->e);
}

int generated_sum(const Generated *x, const Shape *z) {
    i64 bands = (z->rows + z->band - 1) / z->band, plane = plane_of(z->band * z->columns), taps = z->kh * z->kw;
    i64 failed = 0;
#pragma omp parallel num_threads(z->threads)
    {
        summed *weights = scratch((taps + z->e) * plane), *hidden = weights + taps * plane;
#pragma omp for schedule(dynamic)
        for (i64 task = 0; task < z->b * bands; task++) {
            Part part = part_of(z, task / bands * z->g * bands + task % bands, bands), *u = &part;
            part.sizes.s = z->s;
            int bad = !weights;
            if (!bad) take(u, hidden, x->hidden, 1, z->e);
            for (; !bad && part.g < z->g; part.g++) {
                generate(z, u, hidden, x->table, x->bias, weights);
                bad = local_sum(weights, whole_grid(x->value, u), of_band(x->y, u), &u->sizes, &u->weights,
                                &x->value.steps, &x->y.steps);
            }
            if (bad) {
#pragma omp atomic write
                failed = 1;
            }
        }
        free(weights);
    }
    return (int)failed;
}

int generated_gradients(const Generating *x, const Shape *z) {
    i64 bands = (z->rows + z->band - 1) / z->band, plane = plane_of(z->band * z->columns), taps = z->kh * z->kw;
    i64 deep = least(z->h, (z->band - 1) * z->stride_h + (z->kh - 1) * z->dilation_h + 1), failed = 0;
#pragma omp parallel num_threads(z->threads)
    {
        summed *weights = scratch(2 * (taps + z->e) * plane + z->s * deep * z->w), *change = weights + taps * plane;
        summed *hidden = change + taps * plane, *to_hidden = hidden + z->e * plane, *planes = to_hidden + z->e * plane;
        for (i64 odd = 0; odd < 2; odd++) {
            i64 many = (bands + 1 - odd) / 2;
#pragma omp for schedule(dynamic)
            for (i64 task = 0; task < z->b * many; task++) {
                i64 band = task % many * 2 + odd;
                Part part = part_of(z, task / many * z->g * bands + band, bands), *u = &part;
                part.sizes.s = z->s;
                int bad = !weights;
                if (!bad) {
                    take(u, hidden, x->hidden, 1, z->e);
                    memset(to_hidden, 0, z->e * u->plane * sizeof *to_hidden);
                }
                for (; !bad && part.g < z->g; part.g++) {
                    i64 own = (u->b * bands + band) * z->g + u->g;
                    generate(z, u, hidden, x->table, x->bias, weights);
                    bad = kernel_gradient(of_band(x->slope, u), whole_grid(x->value, u), change, &u->sizes,
                                          &u->weights, &x->slope.steps, &x->value.steps);
                    if (bad) break;
                    fill(u, change, taps);
                    products_gradient(u, change, hidden, to_hidden, x->table + u->g * taps * z->e,
                                      x->to_table + own * taps * z->e, z->e);
                    for (i64 k = 0; k < taps; k++) {
                        vec sum = {0};
                        for (i64 p = 0; p < u->plane; p += LANES) sum += load(change + k * u->plane + p);
                        x->to_bias[own * taps + k] += total_of(sum);
                    }
                    bad = scatter(z, u, weights, x->slope, x->to_value, z->s, planes);
                }
                if (!bad) {
                    part.g = 0;
                    put(of_band(x->to_hidden, u), x->to_hidden.steps, to_hidden, u->plane, 1, z->e, u->rows, z->columns,
                        0);
                } else {
#pragma omp atomic write
                    failed = 1;
                }
            }
        }
        free(weights);
    }
    return (int)failed;
}
#endif

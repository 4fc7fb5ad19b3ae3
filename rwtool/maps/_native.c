/* Exact Euclidean distances of a label volume, from every voxel to the nearest voxel of another region.

   A volume is measured one axis after the other. Along the last, contiguous axis ("x") the distance is counted in
   voxels. Along the others, the squared distance of a voxel is the least of the parabolas that stand on the voxels
   of its line (Felzenszwalb and Huttenlocher 2012), within the run of its own region: a voxel of another region
   beside the run is a parabola of height 0, and nothing beyond it can be nearer. What makes it fast:

   - Lines are measured in tiles of 64 that lie side by side, copied to one another's place in the cache.
   - A line of x or a slab of (y, x) of one region has no distance yet. It is noted, not written, and its voxels
     stand for no parabola; in one that holds two regions, every voxel has a distance.
   - Where a region ends is one bit per voxel of a tile, so that most lines are seen to be one run.
   - Lengths are in units of the axis at hand, so that a table of 1 / (2 k) takes the place of divisions.

   What makes it exact: until the last axis, a voxel holds the steps to its nearest along x and y, two whole numbers of
   16 bits, in the place of its distance. All else is in double, and only the distance is rounded, to float32. So it
   does not depend on the order of the axes, either. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef _WIN32
#include <pthread.h>
#define HAS_THREADS
#define LOCK(job) pthread_mutex_lock(&(job)->lock)
#define UNLOCK(job) pthread_mutex_unlock(&(job)->lock)
#else
#define LOCK(job)
#define UNLOCK(job)
#endif

/* The loops are compiled twice, and the machine chooses. Nothing is contracted, so that both give the same bits. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define INLINE static inline __attribute__((always_inline))
#ifndef FOR_EACH_MACHINE /* empty under a sanitizer */
#define FOR_EACH_MACHINE __attribute__((target_clones("avx2", "default")))
#endif
#else
#define INLINE static inline
#define FOR_EACH_MACHINE
#endif

enum { TILE = 64, BLOCK = 16, STEP = 8, MAX_THREADS = 256 };
enum { ALL_LABELS, BOTH_SIDES, TO_VALUE }; /* what the regions are, see `transform` */

static const Py_ssize_t LONGEST = 65535; /* axis whose steps 16 bits hold */
static const Py_ssize_t VOXELS_UNHEARD = 1 << 22; /* between two looks for Ctrl-C: some 50 ms */

/* What stands at a voxel: in the end its distance, before that the steps along x, and 2^16 times those along y. */
typedef union {
    float distance;
    uint32_t steps;
} Cell;

typedef struct {
    const char *labels;
    Cell *cells;
    Py_ssize_t itemsize;
    Py_ssize_t shape[3];
    double spacing[3];
    int regions;
    uint64_t value;
    const double *reciprocals; /* 1 / (2 k) */
    uint8_t *measured;         /* of each slab: whether it holds two regions, so that its voxels have a distance */
    int32_t *slabs;            /* those that do, in order */
    Py_ssize_t n_slabs;
    /* shared by the threads of a pass */
    int along_z, stop, broken;
    Py_ssize_t next, end;
#ifdef HAS_THREADS
    pthread_mutex_t lock;
#endif
} Job;

/* What a thread needs; n is the longest of the axes y and z, or the length of x. */
typedef struct {
    Cell *lines;       /* TILE lines, `pitch` apart: of the samples, then of all voxels */
    Py_ssize_t pitch;  /* at least n, an odd number of cache lines, so that a column of them does not share a set */
    double *squares;   /* n + STEP */
    uint32_t *steps;   /* n + STEP */
    int32_t *place;    /* the parabolas of the envelope: where they stand, */
    double *height;    /* how high, */
    uint32_t *known;   /* from which steps, */
    double *from;      /* and from where on each is the least */
    uint64_t *changes; /* where a line enters another region: a bit per line of the tile */
    int32_t *turns;    /* places with such a bit */
    int32_t *rows;     /* rows of a slab that have a distance along x */
    uint8_t *differs;  /* a byte per voxel of a row or tile */
    void *memory;
} Workspace;

/* How one axis is measured, in units of its spacing. */
typedef struct {
    Py_ssize_t n, stride;   /* length, and elements from one voxel to the next */
    const int32_t *samples; /* places where a distance is known so far */
    Py_ssize_t n_samples;
    double x_square, y_square; /* of a step along x, and along y */
    int last;                  /* whether distances are wanted, or steps */
    double spacing;
} Axis;

#define DIFFERS(T)                                                                  \
    {                                                                               \
        const T *p = (const T *)a, *q = (const T *)b;                               \
        const T value = (T)job->value;                                              \
        if (job->regions == ALL_LABELS)                                             \
            for (Py_ssize_t i = 0; i < n; i++) differs[i] = p[i] != q[i];           \
        else                                                                        \
            for (Py_ssize_t i = 0; i < n; i++) differs[i] = (p[i] == value) != (q[i] == value); \
        break;                                                                      \
    }

/* Say of n voxels from a and from b, one by one, whether they are of different regions. */
INLINE void compare(const Job *job, const char *a, const char *b, Py_ssize_t n, uint8_t *restrict differs)
{
    switch (job->itemsize) {
    case 1: DIFFERS(uint8_t)
    case 2: DIFFERS(uint16_t)
    case 4: DIFFERS(uint32_t)
    default: DIFFERS(uint64_t)
    }
}

/* Whether a voxel is of the region that all distances lead to, and so is at 0. */
INLINE int is_target(const Job *job, Py_ssize_t voxel)
{
    if (job->regions != TO_VALUE) return 0;
    switch (job->itemsize) {
    case 1: return ((const uint8_t *)job->labels)[voxel] == (uint8_t)job->value;
    case 2: return ((const uint16_t *)job->labels)[voxel] == (uint16_t)job->value;
    case 4: return ((const uint32_t *)job->labels)[voxel] == (uint32_t)job->value;
    default: return ((const uint64_t *)job->labels)[voxel] == job->value;
    }
}

/* Count the steps from each voxel of a row to the nearest of another region; 0 if the row holds one region. */
INLINE int measure_row(const Job *job, Py_ssize_t first, uint8_t *differs)
{
    const Py_ssize_t n = job->shape[2];
    const char *labels = job->labels + first * job->itemsize;
    Cell *cells = job->cells + first;
    if (memcmp(labels, labels + job->itemsize, (size_t)((n - 1) * job->itemsize)) == 0) return 0;
    compare(job, labels, labels + job->itemsize, n - 1, differs);
    const uint8_t *change = memchr(differs, 1, (size_t)(n - 1));
    if (change == NULL) return 0;
    int32_t before = -(1 << 28), start = 0;
    for (;;) {
        const int32_t end = change == NULL ? (int32_t)n : (int32_t)(change - differs) + 1;
        const int32_t after = change == NULL ? 1 << 28 : end;
        for (int32_t x = start; x < end; x++) {
            const int32_t left = x - before, right = after - x;
            cells[x].steps = (uint32_t)(left < right ? left : right);
        }
        if (change == NULL) return 1;
        before = end - 1;
        start = end;
        change = memchr(differs + end, 1, (size_t)(n - 1 - end));
    }
}

/* Add a parabola to the envelope of those left of it, between `start` and `end`; gives the new number of them. */
INLINE Py_ssize_t add_parabola(const Job *job, const Axis *axis, Workspace *work, Py_ssize_t size, int32_t place,
                               uint32_t known, double start, double end)
{
    const double x = (double)(int32_t)(known & 0xffff), y = (double)(int32_t)(known >> 16);
    const double height = x * x * axis->x_square + y * y * axis->y_square;
    double from = start;
    while (size > 0) {
        const int32_t other = work->place[size - 1];
        from = 0.5 * (double)(place + other) + (height - work->height[size - 1]) * job->reciprocals[place - other];
        if (from > work->from[size - 1]) break;
        from = start; /* the other is nowhere the least */
        size--;
    }
    if (size > 0 && from >= end) return size; /* this one is, before the end */
    work->place[size] = place;
    work->height[size] = height;
    work->known[size] = known;
    work->from[size] = from;
    return size + 1;
}

/* Write the least square at each voxel from `start` to `end`, inclusive, or the steps that lead there; and up to
   STEP - 1 voxels beyond. */
INLINE void write_envelope(const Axis *axis, const Workspace *work, Py_ssize_t size, int32_t start, int32_t end)
{
    double *squares = work->squares;
    uint32_t *steps = work->steps;
    int32_t x = start;
    for (Py_ssize_t i = 0; i < size; i++) {
        const int32_t stop = i + 1 < size ? (int32_t)work->from[i + 1] + 1 : end + 1;
        if (axis->last) {
            const double height = work->height[i];
            double offset = (double)(x - work->place[i]);
            for (; x < stop; x += STEP, offset += STEP)
                for (int j = 0; j < STEP; j++) squares[x + j] = height + (offset + j) * (offset + j);
        } else {
            const uint32_t known = work->known[i];
            for (int32_t offset = x - work->place[i]; x < stop; x += STEP, offset += STEP)
                for (int j = 0; j < STEP; j++) steps[x + j] = known | (uint32_t)abs(offset + j) << 16;
        }
        x = stop;
    }
}

/* Measure one line of a tile, run by run. The samples stand in `line`; what is found takes their place. */
INLINE void measure_line(const Job *job, const Axis *axis, Workspace *work, Cell *line, int bit, Py_ssize_t n_turns,
                         int target)
{
    const int32_t n = (int32_t)axis->n;
    Py_ssize_t sample = 0, turn = 0;
    for (int32_t start = 0; start < n;) {
        while (turn < n_turns && !(work->changes[work->turns[turn]] >> bit & 1)) turn++;
        const int32_t end = turn < n_turns ? work->turns[turn++] - 1 : n - 1;
        if (target) {
            for (int32_t x = start; x <= end; x++) work->squares[x] = work->steps[x] = 0;
            while (sample < axis->n_samples && axis->samples[sample] <= end) sample++;
        } else {
            Py_ssize_t size = 0;
            if (start > 0) size = add_parabola(job, axis, work, size, start - 1, 0, start, end);
            for (; sample < axis->n_samples && axis->samples[sample] <= end; sample++)
                size = add_parabola(job, axis, work, size, axis->samples[sample], line[sample].steps, start, end);
            if (end < n - 1) size = add_parabola(job, axis, work, size, end + 1, 0, start, end);
            if (size == 0) /* on the last axis alone */
                for (int32_t x = start; x <= end; x++) work->squares[x] = INFINITY;
            write_envelope(axis, work, size, start, end);
        }
        target = !target && job->regions == TO_VALUE; /* the next run is the other of two regions */
        start = end + 1;
    }
    if (axis->last)
        for (int32_t x = 0; x < n; x++) line[x].distance = (float)(sqrt(work->squares[x]) * axis->spacing);
    else
        for (int32_t x = 0; x < n; x++) line[x].steps = work->steps[x];
}

/* Note where the lines of a tile enter another region; gives the number of such places. */
INLINE Py_ssize_t find_changes(const Job *job, const Axis *axis, Workspace *work, Py_ssize_t first, int width)
{
    Py_ssize_t n_turns = 0;
    uint8_t *differs = work->differs;
    memset(differs, 0, TILE); /* beside a narrow tile, nothing */
    for (Py_ssize_t x = 1; x < axis->n; x++) {
        const char *here = job->labels + (first + x * axis->stride) * job->itemsize;
        compare(job, here - axis->stride * job->itemsize, here, width, differs);
        uint64_t changes = 0;
        for (int group = 0; group < TILE / 8; group++) {
            uint64_t bytes = 0;
            for (int i = 0; i < 8; i++) bytes |= (uint64_t)differs[8 * group + i] << 8 * i;
            changes |= (bytes * 0x0102040810204080u >> 56) << 8 * group; /* the lowest bit of each byte */
        }
        work->changes[x] = changes;
        if (changes) work->turns[n_turns++] = (int32_t)x;
    }
    return n_turns;
}

/* Measure the lines of a tile along an axis, and put the distances into the place of those along the axes before. */
INLINE void measure_tile(const Job *job, const Axis *axis, Workspace *work, Py_ssize_t first, int width)
{
    const Py_ssize_t n = axis->n;
    Cell *cells = job->cells + first;
    const Py_ssize_t n_turns = find_changes(job, axis, work, first, width);
    for (Py_ssize_t i = 0; i < axis->n_samples; i += BLOCK) {
        const Py_ssize_t stop = i + BLOCK < axis->n_samples ? i + BLOCK : axis->n_samples;
        for (int c = 0; c < width; c += BLOCK)
            for (Py_ssize_t j = i; j < stop; j++) {
                const Cell *row = cells + axis->samples[j] * axis->stride;
                for (int k = c; k < c + BLOCK && k < width; k++) work->lines[k * work->pitch + j] = row[k];
            }
    }
    for (int c = 0; c < width; c++)
        measure_line(job, axis, work, work->lines + c * work->pitch, c, n_turns, is_target(job, first + c));
    for (Py_ssize_t i = 0; i < n; i += BLOCK) {
        const Py_ssize_t stop = i + BLOCK < n ? i + BLOCK : n;
        for (int c = 0; c < width; c += BLOCK)
            for (Py_ssize_t j = i; j < stop; j++) {
                Cell *row = cells + j * axis->stride;
                for (int k = c; k < c + BLOCK && k < width; k++) row[k] = work->lines[k * work->pitch + j];
            }
    }
}

/* Measure a slab along x and y. */
FOR_EACH_MACHINE
static void measure_slab(const Job *job, Workspace *work, Py_ssize_t slab)
{
    const Py_ssize_t rows = job->shape[1], columns = job->shape[2], first = slab * rows * columns;
    const int last = job->shape[0] == 1;
    const char *labels = job->labels + first * job->itemsize;
    const size_t rest = (size_t)((rows * columns - 1) * job->itemsize);
    job->measured[slab] = 0;
    if (!last && memcmp(labels, labels + job->itemsize, rest) == 0) return; /* one label */
    const double x = job->spacing[2] / job->spacing[1];
    Axis axis = {rows, columns, work->rows, 0, x * x, 0, last, job->spacing[1]};
    for (Py_ssize_t y = 0; y < rows; y++)
        if (measure_row(job, first + y * columns, work->differs)) work->rows[axis.n_samples++] = (int32_t)y;
    if (!last && axis.n_samples == 0 && find_changes(job, &axis, work, first, 1) == 0) return; /* one region */
    for (Py_ssize_t c = 0; c < columns; c += TILE)
        measure_tile(job, &axis, work, first + c, (int)(columns - c < TILE ? columns - c : TILE));
    job->measured[slab] = 1;
}

/* Measure one tile along z. */
FOR_EACH_MACHINE
static void measure_pillars(const Job *job, Workspace *work, Py_ssize_t tile)
{
    const Py_ssize_t plane = job->shape[1] * job->shape[2], first = tile * TILE;
    const double x = job->spacing[2] / job->spacing[0], y = job->spacing[1] / job->spacing[0];
    const Axis axis = {job->shape[0], plane, job->slabs, job->n_slabs, x * x, y * y, 1, job->spacing[0]};
    measure_tile(job, &axis, work, first, (int)(plane - first < TILE ? plane - first : TILE));
}

static int make_workspace(const Job *job, Workspace *work)
{
    const Py_ssize_t *shape = job->shape;
    const size_t n = (size_t)(shape[0] > shape[1] ? shape[0] : shape[1]);
    const size_t widest = (size_t)(shape[2] > TILE ? shape[2] : TILE);
    const size_t pitch = (n / 32 * 2 + 3) * 16, lines = TILE * pitch * sizeof(Cell);
    const size_t doubles = (n + STEP) * sizeof(double), numbers = (n + STEP) * sizeof(int32_t);
    char *memory = work->memory = malloc(4 * doubles + lines + 5 * numbers + widest);
    if (memory == NULL) return -1;
    work->pitch = (Py_ssize_t)pitch;
    work->squares = (double *)memory;
    work->height = (double *)(memory += doubles);
    work->from = (double *)(memory += doubles);
    work->changes = (uint64_t *)(memory += doubles);
    work->lines = (Cell *)(memory += doubles);
    work->steps = (uint32_t *)(memory += lines);
    work->known = (uint32_t *)(memory += numbers);
    work->place = (int32_t *)(memory += numbers);
    work->turns = (int32_t *)(memory += numbers);
    work->rows = (int32_t *)(memory += numbers);
    work->differs = (uint8_t *)(memory + numbers);
    return 0;
}

/* The next slab or tile of a pass that is to be done; -1 when there is none. */
static Py_ssize_t take(Job *job)
{
    LOCK(job);
    const Py_ssize_t mine = !job->stop && job->next < job->end ? job->next++ : -1;
    UNLOCK(job);
    return mine;
}

/* End a pass early. */
static void stop(Job *job, int broken)
{
    LOCK(job);
    job->stop = 1;
    job->broken |= broken;
    UNLOCK(job);
}

/* Do what there is to do of a pass. The thread that came from Python is `heard`: it looks for Ctrl-C now and then. */
static void work_on(Job *job, int heard)
{
    Workspace work;
    if (make_workspace(job, &work) < 0) {
        stop(job, 1);
        return;
    }
    const Py_ssize_t voxels = job->along_z ? TILE * job->shape[0] : job->shape[1] * job->shape[2];
    Py_ssize_t unheard = 0;
    for (Py_ssize_t part; (part = take(job)) >= 0;) {
        if (job->along_z)
            measure_pillars(job, &work, part);
        else
            measure_slab(job, &work, part);
        unheard += voxels;
        if (heard && unheard >= VOXELS_UNHEARD) {
            unheard = 0;
            const PyGILState_STATE state = PyGILState_Ensure();
            if (PyErr_CheckSignals() < 0) stop(job, 0);
            PyGILState_Release(state);
        }
    }
    free(work.memory);
}

#ifdef HAS_THREADS
static void *work_beside(void *job)
{
    work_on(job, 0);
    return NULL;
}
#endif

/* Measure along x and y, or along z, with so many threads. Without Python's lock. */
static void run_pass(Job *job, int along_z, Py_ssize_t parts, int threads)
{
    job->along_z = along_z;
    job->next = 0;
    job->end = parts;
#ifdef HAS_THREADS
    pthread_t others[MAX_THREADS];
    int n = 0;
    while (n + 1 < threads && n + 1 < parts && pthread_create(&others[n], NULL, work_beside, job) == 0) n++;
    work_on(job, 1);
    while (n > 0) pthread_join(others[--n], NULL);
#else
    (void)threads;
    work_on(job, 1);
#endif
}

static void measure(Job *job, int threads)
{
    const Py_ssize_t *shape = job->shape;
    run_pass(job, 0, shape[0], threads);
    if (shape[0] == 1 || job->stop) return;
    for (Py_ssize_t slab = 0; slab < shape[0]; slab++)
        if (job->measured[slab]) job->slabs[job->n_slabs++] = (int32_t)slab;
    run_pass(job, 1, (shape[1] * shape[2] + TILE - 1) / TILE, threads);
}

/* Look at what was given; an error is a programmer's. */
static int check(const Py_buffer *labels, const Py_buffer *distances, Job *job)
{
    const Py_ssize_t size = labels->itemsize;
    if (labels->ndim != 3 || distances->ndim != 3 || (size != 1 && size != 2 && size != 4 && size != 8)) {
        PyErr_SetString(PyExc_ValueError, "labels and distances are volumes; labels are integers of 1 to 8 bytes");
        return -1;
    }
    if (distances->itemsize != 4 || distances->format == NULL || strcmp(distances->format, "f") != 0) {
        PyErr_SetString(PyExc_ValueError, "distances are float32");
        return -1;
    }
    for (int axis = 0; axis < 3; axis++) {
        job->shape[axis] = labels->shape[axis];
        if (labels->shape[axis] != distances->shape[axis] || labels->shape[axis] > LONGEST) {
            PyErr_SetString(PyExc_ValueError, "labels and distances have one shape, and no axis beyond 65535");
            return -1;
        }
        if (!(job->spacing[axis] > 0 && isfinite(job->spacing[axis]))) {
            PyErr_SetString(PyExc_ValueError, "a spacing is three positive numbers");
            return -1;
        }
    }
    if (job->regions < ALL_LABELS || job->regions > TO_VALUE || (size < 8 && job->value >> 8 * size)) {
        PyErr_SetString(PyExc_ValueError, "regions is 0, 1 or 2, and value one that labels can have");
        return -1;
    }
    return 0;
}

static int measure_volume(Job *job, int threads)
{
    Py_ssize_t n = job->shape[0] > job->shape[1] ? job->shape[0] : job->shape[1];
    double *reciprocals = malloc((size_t)(n + 2) * sizeof(double));
    job->measured = malloc((size_t)job->shape[0]);
    job->slabs = malloc((size_t)job->shape[0] * sizeof(int32_t));
    if (reciprocals != NULL && job->measured != NULL && job->slabs != NULL) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t k = 0; k < n + 2; k++) reciprocals[k] = 0.5 / (double)k;
        job->reciprocals = reciprocals;
#ifdef HAS_THREADS
        pthread_mutex_init(&job->lock, NULL);
#endif
        measure(job, threads < MAX_THREADS ? threads : MAX_THREADS);
#ifdef HAS_THREADS
        pthread_mutex_destroy(&job->lock);
#endif
        Py_END_ALLOW_THREADS
    } else
        job->broken = 1;
    free(reciprocals);
    free(job->measured);
    free(job->slabs);
    if (job->broken) PyErr_NoMemory();
    return PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(transform_doc,
    "transform(labels, distances, spacing, regions, value, threads)\n--\n\n"
    "Fill distances with those from each voxel to the nearest of another region; inf where there is none.\n\n"
    "labels : C-contiguous buffer of integers, three axes\n"
    "distances : C-contiguous buffer of float32, as large\n"
    "spacing : tuple of three float\n"
    "regions : 0, each label is one; 1, the label value and all others are two; 2, the same, and value is at 0\n"
    "value : int\n"
    "threads : int");

static PyObject *transform(PyObject *module, PyObject *arguments)
{
    (void)module;
    Job job = {0};
    Py_buffer labels, distances;
    PyObject *from, *to, *done = NULL;
    unsigned long long value;
    int threads;
    double *spacing = job.spacing;
    if (!PyArg_ParseTuple(arguments, "OO(ddd)iKi", &from, &to, spacing, spacing + 1, spacing + 2, &job.regions, &value,
                          &threads))
        return NULL;
    if (PyObject_GetBuffer(from, &labels, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (PyObject_GetBuffer(to, &distances, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT) < 0) {
        PyBuffer_Release(&labels);
        return NULL;
    }
    job.labels = labels.buf;
    job.cells = distances.buf;
    job.itemsize = labels.itemsize;
    job.value = value;
    if (check(&labels, &distances, &job) == 0 && (labels.len == 0 || measure_volume(&job, threads) == 0))
        done = Py_NewRef(Py_None);
    PyBuffer_Release(&labels);
    PyBuffer_Release(&distances);
    return done;
}

static PyMethodDef methods[] = {
    {"transform", transform, METH_VARARGS, transform_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Exact Euclidean distances of label volumes.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
